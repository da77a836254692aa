"""The process in each server pod: staging, driving the engine, publication, drain. The only one that talks to its engine."""
