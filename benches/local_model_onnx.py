"""The baseline of the `local_model` bench: the same model in Python's onnxruntime.

The ONNX graph is built once from the model's own safetensors file, with onnxruntime's fused attention, normalisation
and activation operators, and kept in a cache directory. Started with `--serve`, this program obeys one JSON request a
line on standard input: it is the bench that says what to run and when.

    python local_model_onnx.py --check MODEL_DIR
    python local_model_onnx.py --serve MODEL_DIR
"""

import hashlib
import json
import os
import struct
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tokenizers
from onnx import TensorProto, helper, numpy_helper

FUSED = "com.microsoft"


def read_tensors(path):
    """Reads a safetensors file's 32-bit floats."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if entry.get("dtype") == "F32":
            begin, end = entry["data_offsets"]
            flat = np.frombuffer(data[8 + length + begin : 8 + length + end], dtype="<f4")
            tensors[name] = flat.reshape(entry["shape"])
    return tensors


class Graph:
    """A list of nodes, each with one output named after its number."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, operator, *inputs, domain="", **attributes):
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], domain=domain, **attributes))
        return name


def dense(graph, tensors, value, name):
    """A dense layer, without its bias."""
    return graph.node("MatMul", value, graph.constant(tensors[f"{name}.weight"].T))


def attention_plain(graph, tensors, hidden, mask, name, heads):
    """Self-attention out of standard operators."""
    size = tensors[f"{name}.query.weight"].shape[0] // heads
    split = graph.constant(np.array([0, 0, heads, size], np.int64))
    join = graph.constant(np.array([0, 0, heads * size], np.int64))
    parts = []
    for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        value = dense(graph, tensors, hidden, f"{name}.{part}")
        value = graph.node("Add", value, graph.constant(tensors[f"{name}.{part}.bias"]))
        parts.append(graph.node("Transpose", graph.node("Reshape", value, split), perm=order))
    scores = graph.node("MatMul", parts[0], parts[1])
    scores = graph.node("Div", scores, graph.constant(np.float32(np.sqrt(size))))
    # Where the mask is 0, a score far below all others.
    wide = graph.node("Unsqueeze", mask, graph.constant(np.array([1, 2], np.int64)))
    wide = graph.node("Sub", graph.constant(np.float32(1)), graph.node("Cast", wide, to=TensorProto.FLOAT))
    scores = graph.node("Add", scores, graph.node("Mul", wide, graph.constant(np.float32(-10000))))
    seen = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), parts[2])
    return graph.node("Reshape", graph.node("Transpose", seen, perm=[0, 2, 1, 3]), join)


def attention_fused(graph, tensors, hidden, mask, name, heads):
    """Self-attention as onnxruntime's own operator."""
    parts = ("query", "key", "value")
    weight = np.concatenate([tensors[f"{name}.{part}.weight"].T for part in parts], axis=1)
    bias = np.concatenate([tensors[f"{name}.{part}.bias"] for part in parts])
    return graph.node(
        "Attention", hidden, graph.constant(weight), graph.constant(bias), mask, domain=FUSED, num_heads=heads
    )


def build(model_dir, fused):
    """Builds the graph: word pieces and mask in, normalised vectors out."""
    config = json.loads((Path(model_dir) / "config.json").read_text())
    tensors = read_tensors(Path(model_dir) / "model.safetensors")
    epsilon = config["layer_norm_eps"]
    graph = Graph()

    def norm(value, more, name, bias=None):
        weight, shift = (graph.constant(tensors[f"{name}.{part}"]) for part in ("weight", "bias"))
        if fused and bias is not None:
            bias = graph.constant(bias)
            return graph.node(
                "SkipLayerNormalization", value, more, weight, shift, bias, domain=FUSED, epsilon=epsilon
            )
        if bias is not None:
            value = graph.node("Add", value, graph.constant(bias))
        value = graph.node("Add", value, more)
        return graph.node("LayerNormalization", value, weight, shift, axis=-1, epsilon=epsilon)

    positions = tensors["embeddings.position_embeddings.weight"] + tensors["embeddings.token_type_embeddings.weight"][0]
    words = graph.node("Gather", graph.constant(tensors["embeddings.word_embeddings.weight"]), "ids")
    length = graph.node("Slice", graph.node("Shape", "ids"), *(graph.constant(np.array([n], np.int64)) for n in (1, 2)))
    zero, axis = graph.constant(np.array([0], np.int64)), graph.constant(np.array([0], np.int64))
    hidden = norm(words, graph.node("Slice", graph.constant(positions), zero, length, axis), "embeddings.LayerNorm")

    mask = graph.node("Cast", "mask", to=TensorProto.INT32)
    attention = attention_fused if fused else attention_plain
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        seen = attention(graph, tensors, hidden, mask, f"{name}.attention.self", config["num_attention_heads"])
        mixed = dense(graph, tensors, seen, f"{name}.attention.output.dense")
        bias = tensors[f"{name}.attention.output.dense.bias"]
        hidden = norm(mixed, hidden, f"{name}.attention.output.LayerNorm", bias)
        up = dense(graph, tensors, hidden, f"{name}.intermediate.dense")
        bias = graph.constant(tensors[f"{name}.intermediate.dense.bias"])
        if fused:
            up = graph.node("BiasGelu", up, bias, domain=FUSED)
        else:
            up = graph.node("Gelu", graph.node("Add", up, bias))
        down = dense(graph, tensors, up, f"{name}.output.dense")
        hidden = norm(down, hidden, f"{name}.output.LayerNorm", tensors[f"{name}.output.dense.bias"])

    last = graph.constant(np.array([-1], np.int64))
    tokens = graph.constant(np.array([1], np.int64))
    weight = graph.node("Unsqueeze", graph.node("Cast", "mask", to=TensorProto.FLOAT), last)
    total = graph.node("ReduceSum", graph.node("Mul", hidden, weight), tokens, keepdims=0)
    mean = graph.node("Div", total, graph.node("ReduceSum", weight, tokens, keepdims=0))
    graph.nodes.append(helper.make_node("LpNormalization", [mean], ["vectors"], axis=-1, p=2))

    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in ("ids", "mask")]
    outputs = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", config["hidden_size"]])]
    made = helper.make_graph(graph.nodes, "sentence", inputs, outputs, graph.constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(FUSED, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9)


def cached(model_dir, fused):
    """The path of the built graph, rebuilt when the weights or this program have changed."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update((Path(model_dir) / "model.safetensors").read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "embedd"
    path = cache / f"local_model_{'fused' if fused else 'plain'}_{digest.hexdigest()[:16]}.onnx"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        onnx.save(build(model_dir, fused), part)
        part.rename(path)
    return path


class Reference:
    """Tokenizer and session, as a Python user would set them up."""

    def __init__(self, model_dir, threads, fused=True):
        self.tokenizer = tokenizers.Tokenizer.from_file(str(Path(model_dir) / "tokenizer.json"))
        limits = json.loads((Path(model_dir) / "sentence_bert_config.json").read_text())
        self.limit = limits["max_seq_length"]
        self.tokenizer.enable_truncation(self.limit)
        self.tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        path = str(cached(model_dir, fused))
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def embed(self, texts):
        """One batch, padded to its longest text."""
        encoded = self.tokenizer.encode_batch(texts)
        ids = np.array([text.ids for text in encoded], np.int64)
        mask = np.array([text.attention_mask for text in encoded], np.int64)
        return self.session.run(["vectors"], {"ids": ids, "mask": mask})[0]


def embed_numpy(model_dir, ids):
    """The same forward pass in 64-bit numpy, for one sentence: written apart from the graph, to check it."""
    from math import erf, sqrt

    config = json.loads((Path(model_dir) / "config.json").read_text())
    tensors = {name: value.astype(np.float64) for name, value in read_tensors(Path(model_dir) / "model.safetensors").items()}
    heads = config["num_attention_heads"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + config["layer_norm_eps"])
        return x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def linear(x, name):
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    x = tensors["embeddings.word_embeddings.weight"][ids]
    x = x + tensors["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + tensors["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    gelu = np.vectorize(lambda v: 0.5 * v * (1 + erf(v / sqrt(2))))
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        q, k, v = (
            linear(x, f"{name}.attention.self.{part}").reshape(len(ids), heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        seen = (shares / shares.sum(-1, keepdims=True)) @ v
        seen = seen.swapaxes(0, 1).reshape(len(ids), -1)
        x = norm(x + linear(seen, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        up = gelu(linear(x, f"{name}.intermediate.dense"))
        x = norm(x + linear(up, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def check(model_dir):
    """Compares both graphs with numpy."""
    texts = ["a text", "The quick brown fox jumps over the lazy dog, again and again.", "word " * 300]
    for fused in (False, True):
        reference = Reference(model_dir, 2, fused)
        batch = reference.embed(texts)
        for text, vector in zip(texts, batch):
            ids = reference.tokenizer.encode(text).ids
            wanted = embed_numpy(model_dir, ids)
            print(f"fused={fused} pieces={len(ids)} cosine={float(vector @ wanted):.9f}")


def serve(model_dir):
    """Answers requests: load texts, run them in batches, and say how long it took."""
    reference, texts = None, []
    print(json.dumps({"version": onnxruntime.__version__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "threads" in request:
            reference = Reference(model_dir, request["threads"], request["fused"])
            answer = {"ready": True}
        elif "texts" in request:
            texts = request["texts"]
            answer = {"texts": len(texts)}
        else:
            size = request["batch"]
            begin = time.perf_counter()
            vectors = [reference.embed(texts[at : at + size]) for at in range(0, len(texts), size)]
            answer = {"seconds": time.perf_counter() - begin}
            if request.get("vectors"):
                answer["vectors"] = np.concatenate(vectors).astype(float).round(7).tolist()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    {"--check": check, "--serve": serve}[sys.argv[1]](sys.argv[2])
