"""Tasks that a trained model serves, a folder or module each (section 4 of the paper).

The command line and `sits_keras.explore` call the functions that are exported here.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from sits_keras.tasks.change.maps import map_change as map_change
    from sits_keras.tasks.change.series import map_breaks as map_breaks
    from sits_keras.tasks.classification.classifier import load_classifier as load_classifier
    from sits_keras.tasks.classification.classifier import train_classifier as train_classifier
    from sits_keras.tasks.classification.predict import classify_chips as classify_chips
    from sits_keras.tasks.classification.predict import classify_raster as classify_raster
    from sits_keras.tasks.embedding.rasters import embed_raster as embed_raster
    from sits_keras.tasks.embedding_files import convert_embeddings as convert_embeddings
    from sits_keras.tasks.evaluation.runner import evaluate as evaluate
    from sits_keras.tasks.retrieval.embeddings import query as query
    from sits_keras.tasks.retrieval.search import retrieve as retrieve
    from sits_keras.tasks.segmentation.maps import segment_raster as segment_raster
    from sits_keras.tasks.translation.rasters import translate_raster as translate_raster
    from sits_keras.tasks.webmap import write_webmap as write_webmap

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "change",
        "classification",
        "embedding",
        "embedding_files",
        "evaluation",
        "pictures",
        "retrieval",
        "segmentation",
        "translation",
        "webmap",
        "windows",
    ],
    submod_attrs={
        "change.maps": ["map_change"],
        "change.series": ["map_breaks"],
        "classification.classifier": ["load_classifier", "train_classifier"],
        "classification.predict": ["classify_chips", "classify_raster"],
        "embedding.rasters": ["embed_raster"],
        "embedding_files": ["convert_embeddings"],
        "evaluation.runner": ["evaluate"],
        "retrieval.embeddings": ["query"],
        "retrieval.search": ["retrieve"],
        "segmentation.maps": ["segment_raster"],
        "translation.rasters": ["translate_raster"],
        "webmap": ["write_webmap"],
    },
)
