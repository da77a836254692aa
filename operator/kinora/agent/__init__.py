"""The process in each server pod: staging, driving the engine, publication, drain.

The only one that talks to its engine. It decides nothing about where a job runs.
"""
