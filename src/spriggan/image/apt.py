"""apt with a configuration of its own: finds and downloads the packages of an image.

The host's apt does all downloading, so its proxies, certificates, credentials and keys
are used as they are; nothing of them gets into the image. All stages are solved and
installed from one state of the mirror.
"""

from __future__ import annotations

import email.utils
import re
import shlex
from pathlib import Path

from spriggan.errors import MissingCapability
from spriggan.image.command import Runner
from spriggan.image.recipe import Recipe
from spriggan.image.sources import Distribution, Source, host_sources, stanzas

# What mmdebstrap's "minbase" holds; its documentation gives this set. On Ubuntu apt is not among the
# required packages, and is asked for.
_MINIMAL = ("apt", "?essential", "?priority(required)")

# How the host reaches its mirrors. The rest of its configuration (hooks, pins) is its own affair.
_REACHING = re.compile(
    r"Acquire::(?:(?:https?|ftp|socks5h|mirror|tor)\b|Retries|ForceIPv[46]|Max-FutureTime"
    r"|Check-Valid-Until|Check-Date|Allow\w+)"
)

# Documentation and translations are a quarter of a small system; dpkg keeps them out.
_EXCLUDE = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
)


class Apt:
    """apt working in ``directory``, for ``distribution``."""

    def __init__(self, directory: Path, distribution: Distribution, runner: Runner) -> None:
        self.directory = directory
        self.distribution = distribution
        self.sources: list[Source] = []
        self._runner = runner
        self._environment = {"APT_CONFIG": str(directory / "apt.conf")}

    @property
    def archives(self) -> Path:
        return self.directory / "archives"

    @property
    def sources_text(self) -> str:
        """The ``.sources`` file of the image."""
        return stanzas([source.in_image(self.distribution) for source in self.sources])

    def prepare(self) -> None:
        """Write the configuration and fetch the package lists."""
        candidates = host_sources(self.distribution)
        if not candidates:
            raise self._no_sources("none of the apt sources of this host is")
        for name in ("none", "sources", "lists/partial", "archives/partial"):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "status").touch()
        (self.directory / "apt.conf").write_text(self._configuration())
        self._write_sources(candidates)
        self._get("update", "--error-on=any", what="fetching the package lists")
        self.sources = self._own(candidates)
        if not self.sources:
            raise self._no_sources("the mirrors of this host say that none of them is")
        self._write_sources(self.sources)

    def release_time(self) -> int:
        """When the mirrors were last updated: the newest date that anything in the image shows."""
        dates = []
        for path in (self.directory / "lists").glob("*Release"):
            for line in path.read_text(errors="replace").splitlines():
                if line.startswith("Date:"):
                    dates.append(int(email.utils.parsedate_to_datetime(line[5:].strip()).timestamp()))
                    break
        return max(dates)

    def solve(self, recipe: Recipe) -> list[dict[str, str]]:
        """Per stage, the packages it adds and their versions."""
        wanted: list[str] = []
        before: dict[str, str] = {}
        stages = []
        for stage in recipe.stages:
            wanted += [*(_MINIMAL if stage.bootstrap else ()), *stage.packages]
            now = self._simulate(wanted) if stage.bootstrap or stage.packages else before
            stages.append({name: version for name, version in now.items() if before.get(name) != version})
            before = now
        return stages

    def download(self, recipe: Recipe) -> int:
        """Download all packages of ``recipe``; return their size in bytes."""
        wanted = [p for s in recipe.stages for p in (*(_MINIMAL if s.bootstrap else ()), *s.packages)]
        self._get("install", "--download-only", *wanted, what="downloading packages")
        return sum(path.stat().st_size for path in self.archives.glob("*.deb"))

    def bootstrap(self, root: Path, *, epoch: int) -> None:
        """Make the distribution's minimal system in ``root``, from what was downloaded."""
        hook = self.directory / "mmdebstrap-setup"
        lists, archives = shlex.quote(str(self.directory / "lists")), shlex.quote(str(self.archives))
        # Hard links: mmdebstrap deletes its copies when it is done.
        hook.write_text(
            '#!/bin/sh\nset -eu\nmkdir -p "$1/var/lib/apt" "$1/var/cache/apt"\n'
            'rm -rf "$1/var/lib/apt/lists" "$1/var/cache/apt/archives"\n'
            f'cp -al {lists} "$1/var/lib/apt/lists"\ncp -al {archives} "$1/var/cache/apt/archives"\n'
        )
        hook.chmod(0o700)
        options = self.directory / "mmdebstrap.conf"
        options.write_text('Acquire::Languages "none";\nAPT::Install-Recommends "false";\n')
        self._runner.run(
            [
                *("mmdebstrap", "--mode=root", "--variant=minbase", "--include=apt", "--format=directory"),
                *("--skip=update", f'--setup-hook={shlex.quote(str(hook))} "$1"', f"--aptopt={options}"),
                *(f"--dpkgopt={line}" for line in _EXCLUDE),
                *(self.distribution.codename, root, self.directory / "sources" / "image.sources"),
            ],
            what="making the base system with mmdebstrap",
            isolated=True,
            environment={"SOURCE_DATE_EPOCH": str(epoch)},
        )
        # mmdebstrap leaves the host's name and resolver, and the options it was given.
        for name in ("etc/hostname", "etc/resolv.conf", "etc/apt/apt.conf.d/99mmdebstrap"):
            (root / name).unlink(missing_ok=True)
        (root / "etc/dpkg/dpkg.cfg.d/99mmdebstrap").unlink(missing_ok=True)
        for path in (root / "etc/apt/sources.list.d").iterdir():
            path.unlink()
        (root / f"etc/apt/sources.list.d/{self.distribution.id}.sources").write_text(self.sources_text)
        (root / "etc/apt/sources.list").unlink(missing_ok=True)

    def install_command(self, root: Path, packages: tuple[str, ...]) -> list[str]:
        """The command that installs ``packages`` in ``root``, with ``archives`` mounted in it."""
        options = [
            f"DPkg::Chroot-Directory={root}",
            f"Dir::State::status={root}/var/lib/dpkg/status",
            f"Dir::State::extended_states={root}/var/lib/apt/extended_states",
            f"Dir::Cache::archives={root}/var/cache/apt/archives",
            # A build that loses power is thrown away, so nothing needs to be flushed.
            "DPkg::Options::=--force-unsafe-io",
            *(f"DPkg::Options::=--{line}" for line in _EXCLUDE),
        ]
        flags = [flag for option in options for flag in ("-o", option)]
        config = [f"{name}={value}" for name, value in self._environment.items()]
        return ["env", *config, "apt-get", *flags, "--yes", "-q", "--no-download", "install", *packages]

    def _get(self, *arguments: str, what: str) -> None:
        self._runner.run(["apt-get", "--yes", "-q", *arguments], what=what, environment=self._environment)

    def _simulate(self, packages: list[str]) -> dict[str, str]:
        text = self._runner.output(
            ["apt-get", "--simulate", "-q", "install", *packages],
            what="choosing the packages of the image",
            environment=self._environment,
        )
        return dict(re.findall(r"^Inst (\S+) \((\S+)", text, re.MULTILINE))

    def _own(self, candidates: list[Source]) -> list[Source]:
        """Those of ``candidates`` whose signed release file says they are the distribution's."""
        # apt names a source by file and number of the stanza; URIs it spells in its own way.
        fields = "$(SOURCESENTRY)|$(ORIGIN)|$(CODENAME)"
        text = self._runner.output(
            ["apt-get", "indextargets", "--format", fields, "Created-By: Packages"],
            what="reading the package lists",
            environment=self._environment,
        )
        own = set()
        for line in text.splitlines():
            entry, origin, codename = line.split("|")
            same = codename.partition("-")[0] == self.distribution.codename
            if origin.lower() == self.distribution.id and same:
                own.add(int(entry.rpartition(":")[2]))
        return [source for number, source in enumerate(candidates, start=1) if number in own]

    def _write_sources(self, sources: list[Source]) -> None:
        (self.directory / "sources" / "image.sources").write_text(stanzas(sources))

    def _configuration(self) -> str:
        dump = self._runner.output(["apt-config", "dump"], what="reading apt's configuration")
        reaching = [line for line in dump.splitlines() if _REACHING.match(line)]
        none = self.directory / "none"
        own = {
            "Dir::Etc::Main": "/dev/null",
            "Dir::Etc::Parts": none,
            "Dir::Etc::SourceList": "/dev/null",
            "Dir::Etc::SourceParts": self.directory / "sources",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": none,
            "Dir::State": self.directory,
            "Dir::State::status": self.directory / "status",
            "Dir::Cache": self.directory,
            # Debian's packages for this processor, whatever else the host has switched on.
            "APT::Architectures": self._native(),
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Dpkg::Use-Pty": "false",
        }
        return "\n".join([*reaching, *(f'{name} "{value}";' for name, value in own.items())]) + "\n"

    def _native(self) -> str:
        return self._runner.output(["dpkg", "--print-architecture"], what="asking dpkg").strip()

    def _no_sources(self, found: str) -> MissingCapability:
        return MissingCapability(
            f"{found} {self.distribution}'s own",
            hint=f"Add a source of suite {self.distribution.codename} to /etc/apt/sources.list.d/ "
            "and try again.",
        )
