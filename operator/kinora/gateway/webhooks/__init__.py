"""Webhooks: tells the URL in a VideoJob's `spec.webhook` of its end. Every VideoJob's, whoever made it.

decide.py, payload.py, sign.py and lanes.py are pure; send.py talks to receivers, secrets.py and dispatcher.py to the
API server, shards.py holds the Leases; service.py puts them together. Nothing here knows a dialect or a tenant.
"""
