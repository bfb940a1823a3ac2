"""What the product does, one module per resource; owns the transactions, knows no HTTP."""
