"""How requests are read: JSON bodies, forms, query parameters, and the words for their faults."""
