"""The `--input` options made into samples: which source feeds which input, one sample or a batch of them."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from netsens.errors import InputError, NetsensWarning, UsageError
from netsens.report.contents import ArrayContent, Content, ImageContent, TableContent
from netsens.report.decode import DECODERS, numbered_tensors, read_path, read_stream
from netsens.report.dtypes import Array, convert, warn_of_non_finite
from netsens.report.generate import Generator, generated_shape, parse_generator
from netsens.report.json_lines import JSON_LINES
from netsens.report.lists import FileNames, StreamNames, read_list
from netsens.report.remote import is_remote, remote_files
from netsens.report.specs import InputSpec, check_shape, format_shape, nearest, quoted

if TYPE_CHECKING:
    from netsens.report.images import ImageOptions

DEFAULT_SOURCE = "random:0"
STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Sample:
    """What one run of the model takes. `name` (its file's stem, or `stdin`, `random`, ...) names its results."""

    arrays: dict[str, Array]
    name: str
    source: str
    features: dict[str, list[str]] = field(default_factory=dict)  # input -> the names of its columns


class PendingSample(NamedTuple):
    """A sample that is known of and not read yet, so that one bad file of a batch fails alone."""

    name: str
    source: str
    read: Callable[[], Sample]
    json: bool = False  # it came as JSON


@dataclass(frozen=True)
class InputPlan:
    """All samples that the options ask for. `total` None: a stream. `is_batch`: a glob, a folder or a list was given.

    Of a batch, `files` are the names and paths of its samples and `open_file` reads one; both can be sent to another process. `whole` is the path
    of the one file that a run without a batch reads, where it reads just one; `rows` makes samples of some of its rows. `paths` are all files that are
    read."""

    is_batch: bool
    total: int | None
    pending: Callable[[], Iterator[PendingSample]]
    files: FileNames | None = None
    open_file: Callable[[str, str], Sample] | None = None
    whole: str | None = None
    rows: RowReader | None = None
    stream: StreamNames | None = None
    paths: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[PendingSample]:
        return self.pending()


@dataclass(frozen=True)
class _Source:
    number: int
    input_name: str | None
    text: str
    generator: Generator | None
    files: tuple[str, ...] = ()
    is_batch: bool = False

    @property
    def is_stream(self) -> bool:
        """Whether it holds samples one after another: standard input, or a file of JSON lines."""
        return self.text == STANDARD_INPUT or (not self.is_batch and self.text.lower().endswith(JSON_LINES))


def parse_input_option(option: str, specs: Sequence[InputSpec]) -> tuple[str | None, str]:
    """`NAME=SRC` as (NAME, SRC), `SRC` as (None, SRC). A `=` ends a name only where an input has that name."""
    names = {spec.name for spec in specs}
    for position, character in enumerate(option):
        if character == "=" and option[:position] in names:
            source = option[position + 1 :]
            if not source:
                raise UsageError(f"--input {option} names no source: write --input {option}FILE")
            return option[:position], source
    name, equals, rest = option.partition("=")
    if equals and not _exists(option) and (_exists(rest) or rest == STANDARD_INPUT or parse_generator(rest)):
        raise UsageError(f"--input {option}: the model has no input {name!r}; it has {quoted(nearest(name, [s.name for s in specs]))}")
    if not option:
        raise UsageError("--input is empty: give a file, -, random, zeros or ones")
    return None, option


def plan_inputs(
    options: Sequence[str],
    specs: Sequence[InputSpec],
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    stdin: BinaryIO | None = None,
    inputs_from: str | None = None,
    image: ImageOptions | None = None,
) -> InputPlan:
    """Which samples the `--input` options ask for; nothing is read yet but a stream's and the shared files' names.

    `shapes` are `--shape`'s, `inputs_from` is a list of files (`LIST` or `NAME=LIST`, `-` for standard input), `image` says how pictures become
    arrays. No options at all means `random:0` for every input. `UsageError` when the options contradict each other, `InputError` when a
    file is missing.
    """
    shapes = shapes or {}
    fixed_specs = [replace(spec, shape=shapes.get(spec.name, spec.shape)) for spec in specs]
    given = list(options) or ([DEFAULT_SOURCE] if specs and inputs_from is None else [])
    sources = [_find_source(number, option, specs) for number, option in enumerate(given)]
    if inputs_from is not None:
        name, text = parse_input_option(inputs_from, specs)
        sources.insert(0, _Source(len(given), name, f"the list {text}", None, read_list(text, stdin), is_batch=True))
    _check_no_contradiction(sources, specs)
    named = [source for source in sources if source.generator is None]
    varying = next((source for source in sources if source.is_batch or source.is_stream), None)
    shared = _Shared([source for source in named if source is not varying])
    reader = _Reader(fixed_specs, [replace(source, files=()) for source in sources], shapes, shared, image)
    paths = tuple(path for source in named for path in source.files)
    if varying is None:
        name, text = _single_name(sources)
        single = PendingSample(name, text, lambda: reader.sample(name, text, {}))
        whole = named[0].files[0] if len(named) == 1 and named[0].files and not numbered_folder(named[0].files[0]) else None
        rows = RowReader(reader, named[0].number, name) if whole is not None else None
        return InputPlan(False, 1, lambda: iter([single]), whole=whole, rows=rows, paths=paths)
    if varying.is_stream:
        if varying.text == STANDARD_INPUT:
            if stdin is None:
                raise UsageError("--input -: there is no standard input to read")
            piped = StreamNames("stdin", "stdin")
            return InputPlan(False, None, lambda: _stream_samples(reader, varying, stdin, piped), stream=piped)
        lines = StreamNames(Path(varying.text).stem, varying.text)
        return InputPlan(False, None, lambda: _line_samples(reader, varying, lines), stream=lines)
    names = FileNames(varying.files)
    opener = FileReader(reader, varying.number)
    return InputPlan(True, len(names), lambda: (PendingSample(name, path, partial(opener, name, path)) for name, path in names), names, opener, paths=paths)


@dataclass(frozen=True)
class FileReader:
    """Reads one file of a batch, with what its samples share; it can be sent to another process."""

    reader: _Reader
    number: int

    def __call__(self, name: str, path: str) -> Sample:
        return self.reader.sample(name, path, {self.number: read_path(path)})


class RowReader(NamedTuple):
    """Makes samples of rows of the one array that a file holds."""

    reader: _Reader
    number: int
    name: str

    def sample(self, content: Content, source: str) -> Sample:
        return self.reader.sample(self.name, source, {self.number: content})


def read_inputs(
    options: Sequence[str], specs: Sequence[InputSpec], *, shapes: Mapping[str, tuple[int, ...]] | None = None, stdin: BinaryIO | None = None
) -> Iterator[Sample]:
    """The samples of `plan_inputs`, read one after another; the first bad one raises."""
    return (pending.read() for pending in plan_inputs(options, specs, shapes=shapes, stdin=stdin))


def unique_names(paths: Sequence[Path | str]) -> list[str]:
    """A name for each file's results: its stem; with folders, then with its ending, where stems alone would collide."""
    return [name for name, _ in FileNames([str(path) for path in paths])]


def _single_name(sources: Sequence[_Source]) -> tuple[str, str]:
    # the first file names the results, else the first word; a model without inputs has neither
    for source in sources:
        if source.files:
            return Path(source.files[0]).stem, source.text
    return (sources[0].text.partition(":")[0], sources[0].text) if sources else ("run", "no input")


def _stream_samples(reader: _Reader, source: _Source, stream: BinaryIO, names: StreamNames) -> Iterator[PendingSample]:
    for number, content in enumerate(read_stream(stream, names.source)):
        name, where = names[number]
        if isinstance(content, InputError):
            yield PendingSample(name, where, partial(_refuse, content), True)
        else:
            json = content.textual if isinstance(content, ArrayContent) else isinstance(content, TableContent) and content.json
            yield PendingSample(name, where, partial(reader.sample, name, where, {source.number: content}), json)


def _line_samples(reader: _Reader, source: _Source, names: StreamNames) -> Iterator[PendingSample]:
    """The samples of a file of JSON lines."""
    with open(source.text, "rb") as stream:
        yield from _stream_samples(reader, source, stream, names)


def _refuse(error: InputError) -> Sample:
    raise error


def numbered_folder(path: str) -> bool:
    """Whether a path is a folder in the layout of ONNX's own tests."""
    return not is_remote(path) and Path(path).is_dir()


class _Shared:
    """The contents of files that every sample of a batch shares, each read once, when first asked for."""

    def __init__(self, sources: Sequence[_Source]) -> None:
        self._sources = {source.number: source for source in sources}
        self._contents: dict[int, Content] = {}

    def __getstate__(self) -> dict[str, object]:
        """With all of it read, since the process that it is sent to may not find the files."""
        for source in self._sources.values():
            if source.files:
                self.content(source)
        return self.__dict__

    def content(self, source: _Source) -> Content:
        key = source.number
        if key not in self._contents:
            self._contents[key] = read_path(self._sources[key].files[0])
        return self._contents[key]


class _Reader(NamedTuple):
    specs: Sequence[InputSpec]
    sources: Sequence[_Source]
    shapes: Mapping[str, tuple[int, ...]]
    shared: _Shared
    image: ImageOptions | None = None

    def sample(self, name: str, text: str, own: Mapping[int, Content]) -> Sample:
        """One sample: its own content and the shared ones assigned and conformed, then the generated inputs."""
        arrays: dict[str, Array] = {}
        features: dict[str, list[str]] = {}
        origin: dict[str, str] = {}
        named = {source.input_name for source in self.sources}
        for source in self.sources:
            if source.generator is not None:
                continue
            content = own[source.number] if source.number in own else self.shared.content(source)
            if isinstance(content, ImageContent) and self.image is not None:
                content = replace(content, options=self.image)
            targets = [spec for spec in self.specs if (spec.name == source.input_name if source.input_name else spec.name not in named)]
            sole = source.input_name is not None or len(self.specs) == 1
            assigned = content.assign(targets, sole=sole)
            where = text if source.number in own else source.text
            for input_name, array in assigned.arrays.items():
                if input_name in arrays:
                    raise InputError(f"input {input_name!r} is in {origin[input_name]!r} and in {where!r}; leave one out")
                arrays[input_name] = self._conform(input_name, array, where, assigned.textual)
                origin[input_name] = where
            features.update(assigned.features)
        symbols = self._symbols(arrays)
        self._generate(arrays, symbols)
        self._check_complete(arrays)
        ordered = {spec.name: arrays[spec.name] for spec in self.specs if spec.name in arrays}
        return Sample(ordered, name, text, features)

    def _conform(self, name: str, array: Array, source: str, textual: bool) -> Array:
        spec = next(spec for spec in self.specs if spec.name == name)
        place = f"input {name!r} from {source!r}"
        check_shape(array.shape, spec, place)
        converted = convert(array, spec.dtype, place, textual=textual)
        warn_of_non_finite(converted, place)
        return converted

    def _symbols(self, arrays: Mapping[str, Array]) -> dict[str, int]:
        """What each symbolic dimension is in the arrays that were read; a warning where two of them disagree."""
        symbols: dict[str, tuple[int, str]] = {}
        for spec in self.specs:
            for got, size in zip(arrays[spec.name].shape if spec.name in arrays else (), spec.shape or (), strict=False):
                if not isinstance(size, str):
                    continue
                known, owner = symbols.setdefault(size, (got, spec.name))
                if known != got:
                    warnings.warn(NetsensWarning(f"the model's dimension {size!r} is {known} in input {owner!r} and {got} in {spec.name!r}"), stacklevel=2)
        return {symbol: size for symbol, (size, _) in symbols.items()}

    def _generate(self, arrays: dict[str, Array], symbols: Mapping[str, int]) -> None:
        by_name = {source.input_name: source.generator for source in self.sources if source.generator is not None}
        for position, spec in enumerate(self.specs):
            generator = by_name.get(spec.name) or (None if spec.optional else by_name.get(None))
            if generator is not None and spec.name not in arrays:
                arrays[spec.name] = generator.array(spec, position, generated_shape(spec, self.shapes, symbols))

    def _check_complete(self, arrays: Mapping[str, Array]) -> None:
        missing = [spec for spec in self.specs if spec.name not in arrays and not spec.optional]
        if missing:
            wanted = ", ".join(f"{spec.name!r} ({spec.dtype.name} {format_shape(spec.shape)})" for spec in missing)
            raise InputError(f"no value for input {wanted}: add --input {missing[0].name}=FILE, or =random, =zeros, =ones")


def _find_source(number: int, option: str, specs: Sequence[InputSpec]) -> _Source:
    name, text = parse_input_option(option, specs)
    generator = parse_generator(text)
    if generator is not None or text == STANDARD_INPUT:
        return _Source(number, name, text, generator)
    if is_remote(text):
        files = remote_files(text, DECODERS)
        return _Source(number, name, text, None, files, is_batch=files != (text,))
    path = Path(text)
    if path.is_dir() and not numbered_tensors(path):
        with os.scandir(path) as entries:
            files = tuple(sorted(e.path for e in entries if Path(e.name).suffix.lower() in DECODERS and e.is_file()))
        if not files:
            raise InputError(f"the folder {text!r} holds no file that netsens reads ({' '.join(DECODERS)})")
        return _Source(number, name, text, None, files, is_batch=True)
    if glob.has_magic(text) and not path.exists():
        files = tuple(match for match in sorted(glob.glob(text, recursive=True)) if not os.path.isdir(match))
        if not files:
            raise InputError(f"no file matches {text!r}")
        return _Source(number, name, text, None, files, is_batch=True)
    if not path.exists():
        read_path(path)  # raises the sentence for a missing file before any work is done
    return _Source(number, name, text, None, (text,))


def _check_no_contradiction(sources: Sequence[_Source], specs: Sequence[InputSpec]) -> None:
    varying = [source for source in sources if source.is_batch or source.is_stream]
    if len(varying) > 1:
        raise UsageError(
            f"{varying[0].text!r} and {varying[1].text!r} each give many samples; one --input may be a glob, a folder "
            f"or standard input, the others are shared by all its samples"
        )
    for spec in specs:
        given = [source.text for source in sources if source.input_name == spec.name]
        if len(specs) == 1:
            given = [source.text for source in sources]
        if len(given) > 1:
            raise UsageError(f"input {spec.name!r} is given {len(given)} times ({quoted(given)}); for a batch run quote a glob: --input 'folder/*.npy'")
    if sum(1 for source in sources if source.input_name is None and source.generator is not None) > 1:
        raise UsageError("two generated inputs have no name; write NAME=random, NAME=zeros or NAME=ones")
    unnamed = [source for source in sources if source.input_name is None]
    if unnamed and {source.input_name for source in sources} >= {spec.name for spec in specs}:
        raise UsageError(f"--input {unnamed[0].text} has nothing left to feed: every input of the model has its own --input")


def _exists(text: str) -> bool:
    return bool(text) and (is_remote(text) or os.path.exists(text) or (glob.has_magic(text) and bool(glob.glob(text))))
