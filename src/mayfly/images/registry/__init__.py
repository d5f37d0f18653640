"""OCI registries: what is in them, fetched and put there.

>>> registry = Registry(parse_reference("docker://localhost:5000/images/el9:2026"))
>>> manifest = registry.resolve()
>>> config = registry.blob(manifest.config)
>>> with registry.fetch_blob(manifest.layers[0], downloads) as layer: ...
"""

from mayfly.images.registry.client import Access, Descriptor, Manifest, Registry
from mayfly.images.registry.reference import Reference, parse_reference

__all__ = ["Access", "Descriptor", "Manifest", "Reference", "Registry", "parse_reference"]
