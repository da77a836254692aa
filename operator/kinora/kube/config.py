"""Where the API server is and how to log in: in a pod by its service account, elsewhere by a kubeconfig.

Authentication (kubeconfig merging, exec plugins, token refresh) is the kubernetes package's work; this module only
takes the result out of it. Nothing here sends a request.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config


@dataclass(frozen=True)
class Connection:
    """A server's address, its TLS context, the ``Authorization`` header of the moment, and the default namespace.

    The files are for a library that builds its own TLS context from them (kopf).
    """

    host: str
    tls: ssl.SSLContext | None
    authorization: Callable[[], str | None]
    namespace: str
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify_tls: bool = True


def _tls(configuration: kubernetes_client.Configuration) -> ssl.SSLContext | None:
    if not configuration.host.startswith("https"):
        return None
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert or None)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file or None)
    return context


def connect(kubeconfig: str | None = None, context: str | None = None) -> Connection:
    """The connection of this process: in a pod its own account; else ``kubeconfig`` (default: KUBECONFIG, ~/.kube).

    Raises kubernetes.config.ConfigException when there is neither.
    """
    configuration = kubernetes_client.Configuration()
    namespace = "default"
    if kubeconfig is None and context is None:
        try:
            kubernetes_config.load_incluster_config(client_configuration=configuration)
            namespace = _own_namespace()
            return _connection(configuration, namespace)
        except kubernetes_config.ConfigException:
            pass  # not in a pod: a person's kubeconfig rules
    kubernetes_config.load_kube_config(config_file=kubeconfig, context=context, client_configuration=configuration)
    _, active = kubernetes_config.list_kube_config_contexts(config_file=kubeconfig)
    chosen = active
    if context is not None:
        every, _ = kubernetes_config.list_kube_config_contexts(config_file=kubeconfig)
        chosen = next(entry for entry in every if entry["name"] == context)
    namespace = chosen["context"].get("namespace", "default")
    return _connection(configuration, namespace)


def _connection(configuration: kubernetes_client.Configuration, namespace: str) -> Connection:
    def authorization() -> str | None:
        # The call refreshes a projected token when due. The package named the key "authorization" before 37.
        header = configuration.get_api_key_with_prefix("BearerToken", "authorization")
        return str(header) if header else None

    return Connection(
        host=configuration.host.rstrip("/"),
        tls=_tls(configuration),
        authorization=authorization,
        namespace=namespace,
        ca_file=configuration.ssl_ca_cert or None,
        cert_file=configuration.cert_file or None,
        key_file=configuration.key_file or None,
        verify_tls=bool(configuration.verify_ssl),
    )


def _own_namespace() -> str:
    path = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return "default"
