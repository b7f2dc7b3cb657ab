"""Encode images with an exported ONNX file, without TensorFlow and sits_keras.

Usage:
    pip install onnxruntime
    sits-keras export sits_rgbn_small encoder --format onnx
    python examples/encode_with_onnx.py encoder/windows.onnx images.npy features.npy

`images.npy` contains `(batch, 64, 64, bands)` float32 reflectance. For PyTorch, use
`torch.from_numpy(features)`.
"""

import json
import sys

import numpy as np
import onnxruntime

model, images, out = sys.argv[1:]
session = onnxruntime.InferenceSession(model)
(features,) = session.run(["features"], {"images": np.load(images)})
np.save(out, features)
metadata = json.loads(session.get_modelmeta().custom_metadata_map["sits_keras"])
print(f"{out}: features {features.shape} of bands {', '.join(metadata['bands'])}")
