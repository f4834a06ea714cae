"""The fault x load table: real processes under traffic, one fault after the other, each answer compared."""
