"""The kinora command: subcommands for people, and the entry points of the images.

Each subcommand's module is imported when it runs, so that none pays for another's libraries.
"""

from __future__ import annotations

import shutil
import sys
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from kinora import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinora.catalogue.load import Catalogue


_MODELS = click.option(
    "--models", multiple=True, metavar="FILE", help="Catalogue entries of an administrator, or ConfigMaps with them."
)
_ALIAS = click.option(
    "--alias", "aliases", multiple=True, metavar="NAME=MODEL", help="A further name, as the chart's modelAliases."
)


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Render videos on a GPU cluster the way Kubernetes runs pods."""


@main.command()
@click.argument("job")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write (default: NAME.mp4).")
@click.option("-n", "--namespace", help="Namespace (default: the kubeconfig's).")
@click.option("--context", help="Context of the kubeconfig (default: its current one).")
@click.option("--index", default=0, show_default=True, help="Which artifact of the job.")
@click.option("--image", help="Image of the reader pod (default: the image of the namespace's agents).")
@click.option("--endpoint", metavar="URL", help="Where the bucket is reached from here (default: as its store says).")
@click.option("--timeout", default=120.0, show_default=True, help="Seconds to wait for the reader pod.")
def fetch(  # noqa: PLR0917 - click passes options by name
    job: str,
    output: Path | None,
    namespace: str | None,
    context: str | None,
    index: int,
    image: str | None,
    endpoint: str | None,
    timeout: float,
) -> None:
    """Bring the video of a finished JOB (vj/NAME or NAME) here, and check its sha256.

    From a bucket it is read with your own AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.
    """
    from kinora.cli import fetch as command

    name = job.rpartition("/")[2]
    try:
        written = command.run(
            command.Request(
                name=name,
                output=output or Path(f"{name}.mp4"),
                namespace=namespace,
                context=context,
                index=index,
                image=image,
                endpoint=endpoint,
                timeout_seconds=timeout,
            )
        )
    except command.FetchError as error:
        click.echo(f"kinora fetch: {error}", err=True)
        sys.exit(1)
    click.echo(f"{written.path}  {written.bytes} bytes  sha256 {written.sha256}")


_CONFIG_MAP = click.option(
    "--workflow-config-map", "config_map", metavar="FILE", help="The ConfigMap of a raw workflow, if FILE has it not."
)


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@_MODELS
@_ALIAS
@_CONFIG_MAP
def validate(
    files: tuple[str, ...], output: str, models: tuple[str, ...], aliases: tuple[str, ...], config_map: str | None
) -> None:
    """Check VideoJobs and ModelServers in YAML FILES (- is standard input) without a cluster: every fault at once.

    Exit code 0: sound; 1: faults; 2: a file cannot be read.
    """
    from kinora.cli import validate as command
    from kinora.cli.manifests import Document, UnreadableError, read

    catalogue = _catalogue("validate", models, aliases)
    documents: list[Document] = []
    unreadable = False
    for file in (*files, *([config_map] if config_map else ())):
        try:
            documents += read(file)
        except UnreadableError as error:
            click.echo(f"kinora validate: {error}", err=True)
            unreadable = True
    report = command.validate(documents, catalogue)
    if output == "json":
        import json

        click.echo(json.dumps(report.faults, indent=2, ensure_ascii=False))
    else:
        for line in report.lines:
            click.echo(line)
    for note in report.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{len(files)} files, {report.objects} objects, {len(report.lines)} faults", err=True)
    sys.exit(2 if unreadable else 1 if report.lines else 0)


@main.command()
@click.argument("trace", type=click.Path(path_type=Path), required=False)
@click.option("--cluster", "clusters", multiple=True, type=click.Path(path_type=Path), help="YAML; may be repeated.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw what happened as PNG (needs matplotlib).")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option(
    "--make-trace", metavar="JOBS", type=click.IntRange(1, 100_000), help="Print a bursty day as CSV instead."
)
@click.option("--server", default="wan", show_default=True, help="The ModelServer that --make-trace names.")
@click.option("--seed", default=1, show_default=True, help="The seed of --make-trace.")
def simulate(  # noqa: PLR0917 - click passes options by name
    trace: Path | None,
    clusters: tuple[Path, ...],
    plot: Path | None,
    output: str,
    make_trace: int | None,
    server: str,
    seed: int,
) -> None:
    """Play the arrivals in TRACE (CSV) on made-up clusters: waiting times, GPU use and cost under each policy.

    The scheduling decisions are the operator's own. docs/scheduling.md shows both files.
    """
    from kinora.cli import simulate as command
    from kinora.controller.simulate.trace import bursty_day, write

    if make_trace is not None:
        click.echo(write(bursty_day(server, make_trace, seed)), nl=False)
        return
    if trace is None or not clusters:
        raise click.UsageError("TRACE and at least one --cluster are needed (or --make-trace JOBS)")
    try:
        results = command.simulate(command.load_trace(trace), command.load_clusters(clusters))
        click.echo(command.as_json(results) if output == "json" else command.as_table(results))
        if plot is not None:
            command.plot(results, plot)
    except command.SimulationError as error:
        for line in str(error).splitlines():
            click.echo(f"kinora simulate: {line}", err=True)
        sys.exit(1)


@main.command()
@click.argument("file", type=click.Path())
@click.option("--inputs-as", "inputs", multiple=True, metavar="NAME=PATH", help="Name a staged file; may be repeated.")
@click.option("--job", help="Which VideoJob of the file (default: the only one).")
@click.option("--model", help="The model of a job that names a ModelServer.")
@_MODELS
@_ALIAS
@_CONFIG_MAP
def render(  # noqa: PLR0917 - click passes options by name
    file: str,
    inputs: tuple[str, ...],
    job: str | None,
    model: str | None,
    models: tuple[str, ...],
    aliases: tuple[str, ...],
    config_map: str | None,
) -> None:
    """Print the graph of the VideoJob in FILE (- is standard input) in ComfyUI's API format. Needs no cluster.

    Paths of --inputs-as are relative to the engine's input folder: --inputs-as image=photo.png.
    """
    from kinora.cli import render as command
    from kinora.cli.manifests import UnreadableError, read

    catalogue = _catalogue("render", models, aliases) if models or aliases else None
    try:
        documents = read(file) + (read(config_map) if config_map else [])
        picked, files = command.pick(documents, job), command.parse_inputs(inputs)
        text, notes = command.render(picked, files, model, catalogue, documents)
    except UnreadableError as error:
        click.echo(f"kinora render: {error}", err=True)
        sys.exit(2)
    except command.RenderError as error:
        for line in str(error).splitlines():
            click.echo(f"kinora render: {line}", err=True)
        sys.exit(1)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    click.echo(text)


@main.command()
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@click.option("-f", "--file", "files", multiple=True, metavar="FILE", help="Entries, or ConfigMaps with entries.")
def models(output: str, files: tuple[str, ...]) -> None:
    """List the models that VideoJobs and ModelServers can name.

    With --file those of an administrator too, each checked as the operator does it; exit code 1: one cannot be used.
    """
    from kinora.cli.models import shown

    catalogue = _catalogue("models", files, (), stop=False)
    click.echo(shown(catalogue, output))
    for why in catalogue.refused.values():
        click.echo(f"kinora models: {why}", err=True)
    sys.exit(1 if catalogue.refused else 0)


def _catalogue(command: str, files: Sequence[str], aliases: Sequence[str], *, stop: bool = True) -> Catalogue:
    """The packaged catalogue, with what the options add; ends the process (2) where that cannot be used."""
    from kinora.catalogue.load import CatalogueError
    from kinora.cli.manifests import UnreadableError
    from kinora.cli.models import with_files

    try:
        catalogue = with_files(files, aliases)
    except (UnreadableError, CatalogueError) as error:
        click.echo(f"kinora {command}: {error}", err=True)
        sys.exit(2)
    if stop and catalogue.refused:
        for why in catalogue.refused.values():
            click.echo(f"kinora {command}: {why}", err=True)
        sys.exit(2)
    return catalogue


@main.group()
def weights() -> None:
    """Fetch weight files, look at them, verify them, make FP8 of them."""


@weights.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--tensors", is_flag=True, help="One line a tensor.")
def weights_inspect(file: Path, tensors: bool) -> None:
    """Tensors of a safetensors FILE by type, with totals. Reads its header only."""
    from kinora.cli.weights import WeightsError, inspect

    try:
        click.echo(inspect(file, tensors=tensors))
    except WeightsError as error:
        _fail("weights inspect", error)


@weights.command("verify")
@click.option("--model", required=True, help="A model of the catalogue.")
@click.option("--root", required=True, type=click.Path(path_type=Path), help="The folder of models.")
@click.option("--level", type=click.Choice(["Size", "Header", "Hash"]), default="Header", show_default=True)
def weights_verify(model: str, root: Path, level: str) -> None:
    """Whether a model's weight files are there and are what the catalogue says. Exit code 1: not all."""
    from kinora.cli.weights import WeightsError, check

    try:
        shown, sound = check(model, root, level)
    except WeightsError as error:
        _fail("weights verify", error)
    click.echo(shown)
    sys.exit(0 if sound else 1)


@weights.command("fetch")
@click.argument("model")
@click.option("--into", required=True, type=click.Path(path_type=Path), help="The folder of models.")
@click.option("--source", "sources", multiple=True, metavar="NAME=URL[#sha256=HEX]", help="NAME: role or path.")
@click.option("--modelserver", "manifest", metavar="FILE", help="Take spec.weights of the ModelServer in FILE.")
@click.option("--verify", "level", type=click.Choice(["Size", "Header", "Hash"]), help="Default: Header.")
@click.option("--quantize", is_flag=True, help="Make FP8 of a BF16, FP16 or FP32 source where FP8 is expected.")
@click.option("--hub", metavar="URL", help="The hub that hub:// means.")
@click.option("--allow-http", is_flag=True, help="Take http:// too.")
@click.option("--secrets", type=click.Path(path_type=Path), help="Folder with a folder a Secret (else: environment).")
@click.option("--connections", default=4, show_default=True, type=click.IntRange(1, 64), help="Parts at once.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def weights_fetch(output: str, **arguments: object) -> None:
    """Bring the weight files of MODEL, verified; what is there and right is left alone. Interrupted, it is resumed.

    Sources: https://, hub://OWNER/REPO/PATH, s3://BUCKET/KEY, oss://BUCKET/KEY, file:///PATH.
    Exit code 0: all are right; 1: trying again is of no use; 3: try again; 4: not enough space.
    """
    import os

    from kinora.cli import weights_fetch as command

    asked = command.Asked(**arguments, as_json=output == "json")  # type: ignore[arg-type]
    try:
        sys.exit(command.run(asked, os.environ))
    except command.UsageError as error:
        click.echo(f"kinora weights fetch: {error}", err=True)
        sys.exit(2)


@weights.command("quantize")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--scaled", is_flag=True, help="Scale each tensor to the whole range (ComfyUI's scaled FP8).")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes (default: one a core, 4 at most).")
def weights_quantize(source: Path, target: Path, scaled: bool, workers: int | None) -> None:
    """Make float8_e4m3fn TARGET of a BF16, FP16 or FP32 SOURCE (safetensors); norms, biases, embeddings stay."""
    import os

    from kinora.cli.weights import WeightsError, quantize

    try:
        click.echo(quantize(source, target, scaled=scaled, workers=workers or min(4, os.cpu_count() or 1)))
    except WeightsError as error:
        _fail("weights quantize", error)


def _fail(command: str, error: Exception) -> NoReturn:
    click.echo(f"kinora {command}: {error}", err=True)
    sys.exit(1)


@main.command()
def operator() -> None:
    """Run the operator (in its pod; settings come from the environment)."""
    from kinora.controller.main import run

    run()


@main.command()
def agent() -> None:
    """Run the agent (in a server pod; settings come from the environment)."""
    from kinora.agent.main import run

    run()


@main.command()
def stager() -> None:
    """Run a stager (in its pod; settings come from the environment)."""
    from kinora.stager.main import run

    run()


@main.command()
def gateway() -> None:
    """Run the gateway (in its pod; settings come from the environment)."""
    from kinora.gateway.main import run

    run()


@main.group()
def keys() -> None:
    """Keys that open the gateway."""


@keys.command("new")
@click.argument("name")
@click.option("-n", "--namespace", required=True, help="Where the key's VideoJobs live.")
@click.option("--queue", default="default", show_default=True, help="Their queue.")
@click.option("--tenant", help="Whose jobs the key sees; keys of one tenant share them (default: NAME).")
@click.option("--dialect", "dialects", multiple=True, help="An API that the key opens (default: all); may repeat.")
@click.option("--limit", "limits", multiple=True, metavar="NAME=N", help="For example concurrent=10; may repeat.")
@click.option("--days", type=click.IntRange(1), help="Until it expires (default: never).")
def keys_new(  # noqa: PLR0917 - click passes options by name
    name: str,
    namespace: str,
    queue: str,
    tenant: str | None,
    dialects: tuple[str, ...],
    limits: tuple[str, ...],
    days: int | None,
) -> None:
    """Make a key. It is shown once, here; the entry that the gateway's Secret needs holds only its sha256."""
    from kinora.cli import keys as command

    wanted = command.Wanted(name, namespace, queue, tenant, dialects, limits, days)
    try:
        made = command.new(wanted)
    except command.KeysError as error:
        _fail("keys new", error)
    click.echo(made.key)
    click.echo(made.advice, err=True)


@main.command("weights-job", hidden=True)
def weights_job() -> None:
    """Fill a weights volume (in a weights Job's pod; settings come from the environment)."""
    from kinora.weights.job import run

    sys.exit(run())


@main.group()
def artifacts() -> None:
    """Tidy up artifact stores."""


@artifacts.command("gc")
@click.option("-n", "--namespace", help="Namespace (default: the kubeconfig's).")
@click.option("--context", help="Context of the kubeconfig (default: its current one).")
@click.option("--modelserver", "model_server", metavar="NAME", help="Its store alone (default: all of the namespace).")
@click.option("--older-than", default="1d", show_default=True, metavar="AGE", help="As 90m, 12h, 7d; at least 1h.")
@click.option("--gone", is_flag=True, help="The videos of VideoJobs that are gone too.")
@click.option("--delete", is_flag=True, help="Remove them (default: show them only).")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--image", help="Image of the pod that reads a claim (default: the image of the namespace's agents).")
@click.option("--endpoint", metavar="URL", help="Where the bucket is reached from here (default: as its store says).")
@click.option("--timeout", "timeout_seconds", default=120.0, show_default=True, help="Seconds to wait for the pod.")
def artifacts_gc(output: str, **options: object) -> None:
    """Show, or --delete, what nobody will ask for: bytes of lost attempts, inputs that no unfinished job names.

    Never what a VideoJob's status names, and nothing of an unfinished one. Claims are read through a short-lived pod,
    buckets with your own AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.
    """
    from kinora.cli import artifacts as command

    try:
        command.run(command.Asked(**options, as_json=output == "json"), click.echo)  # type: ignore[arg-type]
    except command.GcError as error:
        _fail("artifacts gc", error)


@main.command("install-supervisor", hidden=True)
@click.argument("destination", type=click.Path(path_type=Path))
def install_supervisor(destination: Path) -> None:
    """Copy the engine's supervisor into the folder that it shares with the engine container."""
    with as_file(files("kinora.engine") / "supervisor.py") as source:
        shutil.copyfile(source, destination)
    destination.chmod(0o644)


@main.command("serve-file", hidden=True)
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("name")
@click.option("--port", default=8781)
def serve_file(root: Path, name: str, port: int) -> None:
    """Serve one file of a volume over HTTP (in the reader pod of `kinora fetch`)."""
    from kinora.cli import fetch as command

    command.serve(root, name, port)


@main.command("serve-claim", hidden=True)
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--port", default=8781)
def serve_claim(root: Path, port: int) -> None:
    """List and remove the objects of a volume over HTTP (in the pod of `kinora artifacts gc`)."""
    import os

    from aiohttp import web

    from kinora.cli.artifacts_pod import HASH_VARIABLE, application

    web.run_app(application(root, os.environ[HASH_VARIABLE]), port=port, print=None)
