"""How one, two and three nodes share a dataset job, and how long a dead node or a lost database is felt.

The nodes' models are fakes whose step is a wait of a fixed time. With real models, nodes on one machine would share its
cores and give no more together than one alone; what is measured here is what the sharing itself costs.
"""
