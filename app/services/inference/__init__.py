"""The node's models as the other services use them."""
