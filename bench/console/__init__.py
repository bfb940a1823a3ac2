"""How fast the lists behind the console answer on large stores."""
