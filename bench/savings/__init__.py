"""What is computed once in place of in every step, by turns in one process: how much it saves, and that bytes stay.

`python -m bench.savings` draws with the demo pack in this process, without a queue and without HTTP, and prints a table
and one line of JSON.
"""
