"""The record of a request, as text for people and as lines of JSON for programs. Imports dispatch and domain only."""
