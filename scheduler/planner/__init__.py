"""Pure numerics of planning: price sheets, batch laws, the search for a plan. Imports domain and numpy only."""
