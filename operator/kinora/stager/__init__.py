"""The stager: the only process that fetches what users point to.

It brings a job's inputs into the store, looks at them, and says so in the job's condition InputsReady, before anybody
asks for a GPU. It never binds, queues or ends a job, and never talks to an engine. `decide.py` and `verdict.py` are
pure.
"""
