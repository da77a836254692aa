"""The kinds that Kinora reads and writes, as data. No behaviour here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Resource:
    """One kind on the API server; group "" is the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The request path; no namespace means all namespaces."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


VIDEOJOB: Final = Resource("kinora.dev", "v1alpha1", "videojobs", "VideoJob")
MODELSERVER: Final = Resource("kinora.dev", "v1alpha1", "modelservers", "ModelServer")
POD: Final = Resource("", "v1", "pods", "Pod")
SERVICE: Final = Resource("", "v1", "services", "Service")
CONFIGMAP: Final = Resource("", "v1", "configmaps", "ConfigMap")
SECRET: Final = Resource("", "v1", "secrets", "Secret")
CLAIM: Final = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
SERVICE_ACCOUNT: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount")
NAMESPACE: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODE: Final = Resource("", "v1", "nodes", "Node", namespaced=False)
EVENT: Final = Resource("events.k8s.io", "v1", "events", "Event")
DEPLOYMENT: Final = Resource("apps", "v1", "deployments", "Deployment")
NETWORK_POLICY: Final = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
JOB: Final = Resource("batch", "v1", "jobs", "Job")
ROLE_BINDING: Final = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
LEASE: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
TOKEN_REVIEW: Final = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
SUBJECT_ACCESS_REVIEW: Final = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)
