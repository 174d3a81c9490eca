"""Four workers on one PostgreSQL while everything fails, and a checker that trusts none of them."""
