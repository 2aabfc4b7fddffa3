"""Human ratings as files of every format that people have them in, at miniature size."""

import io
import json

import pytest
from PIL import Image

# (image, our dimension, score, the answer as the official files write it)
ITEMS = [
    ("Aesthetics/000800.jpg", "aesthetics", 4.105, "low 4.105"),
    ("Aesthetics/000801.jpg", "aesthetics", 8.626, "very high 8.626"),
    ("Funniness/000800.jpg", "funniness", 10.0, "very high 10.000"),
    ("Emotional_Valence/000800.jpg", "emotional_valence", -2.0, "negative -2.000"),
    ("Memorability/000800.jpg", "memorability", 0.0, "very low 0.000"),
]
EXPECTED = [("/".join((d, i.split("/")[1])), d, s) for i, d, s, _ in ITEMS]


def facts(ratings):
    return [(r.key, r.dimension, r.score) for r in ratings]


def png(shade=100):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, shade, shade)).save(file, "png")
    return file.getvalue()


def rated_pictures(folder):
    """A folder with a small picture for every item."""
    for index, (image, *_) in enumerate(ITEMS):
        (folder / image).parent.mkdir(exist_ok=True)
        (folder / image).write_bytes(png(index))
    return folder


def write_official(folder, items=ITEMS):
    by_dim = {}
    for image, _, _, answer in items:
        by_dim.setdefault(image.split("/")[0], []).append((image, answer))
    for name, entries in by_dim.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        chats = [
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": image},
                        {"type": "text", "text": "<image>  \nHow does it feel?"},
                    ],
                }
            ]
            for image, _ in entries
        ]
        (folder / name / f"{name}_messages.json").write_text(json.dumps(chats))
        (folder / name / f"{name}_scores.json").write_text(json.dumps([a for _, a in entries]))
    return folder


def write_training(file, wrap="{}", as_list=True):
    records = [
        {
            "id": f"{index:05d}",
            "image": [image] if as_list else image,
            "conversations": [
                {"from": "human", "value": "<image>  \nRate it."},
                {"from": "gpt", "value": wrap.format(answer)},
            ],
        }
        for index, (image, _, _, answer) in enumerate(ITEMS)
    ]
    file.write_text(json.dumps(records))
    return file


def hub_columns(split_items=ITEMS):
    return {
        "id": [f"{i:05d}" for i in range(len(split_items))],
        "image": [{"bytes": png(n), "path": image} for n, (image, *_) in enumerate(split_items)],
        "dimension": [image.split("/")[0] for image, *_ in split_items],
        "prompt": ["<image>\nRate it."] * len(split_items),
        "score": [score for _, _, score, _ in split_items],
    }


def write_parquet(file):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = hub_columns()
    table = pa.table({**columns, "score": pa.array(columns["score"], pa.float32())})
    pq.write_table(table, file)
    return file
