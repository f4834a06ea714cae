"""Pure numerics of planning: prices, batch distributions, the search for a plan. Imports domain and numpy only."""
