"""The log: its two formats, what may stand in it, and the ids of the request and the job that a line belongs to.

What users write and API keys never reach the log, whatever fails: `errors.py` renders exceptions without their texts,
`formats.py` withholds the messages of other libraries. Imports nothing of the application.
"""
