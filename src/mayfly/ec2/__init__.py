"""The EC2 query API: what boto3 and the ``aws`` command speak, over the site's own operations.

``docs/reference/ec2.md`` says which actions there are. Nothing here starts a machine: ``ports``
says what is needed of whoever does.
"""
