"""How an agent without keys works on a bucket: it asks the store's stager for each URL, for one job's objects alone.

`asks` is what is asked, `grant` who may (both pure), `signer` the agent's side. The other side is kinora.stager.broker.
"""
