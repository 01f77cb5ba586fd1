"""The domains kontrast brings along. Light: nothing here imports torch."""

import kontrast
from kontrast import AdapterRecord, AugmenterRecord, EncoderRecord


@kontrast.hookimpl
def kontrast_adapters() -> list[AdapterRecord]:
    """Return our domains."""
    return [
        AdapterRecord(
            "graph",
            "kontrast.adapters.graph:GraphAdapter",
            "Graphs, as torch_geometric Batches",
            extra="kontrast[graph]",
        ),
        AdapterRecord(
            "vision",
            "kontrast.adapters.vision:VisionAdapter",
            "Images [B, C, H, W]",
            extra="kontrast[vision]",
        ),
    ]


@kontrast.hookimpl
def kontrast_encoders() -> list[EncoderRecord]:
    """Return the encoders of our domains."""
    home, graphs = "kontrast.adapters.vision", {"extra": "kontrast[graph]", "adapter": "graph"}
    return [
        EncoderRecord(
            "small-cnn", f"{home}:SmallCNN", "Four convolutions, for images up to 32 pixels", adapter="vision"
        ),
        EncoderRecord("gin", "kontrast.adapters.graph:GIN", "Graph isomorphism network", "arXiv:1810.00826", **graphs),
        EncoderRecord(
            "gcn", "kontrast.adapters.graph:GCN", "Graph convolutional network", "arXiv:1609.02907", **graphs
        ),
        EncoderRecord(
            "structural-gin",
            "kontrast.adapters.graph:StructuralGIN",
            "GIN on spectrum and degrees, reads no features",
            "arXiv:2006.09963",
            **graphs,
        ),
        EncoderRecord("gat", "kontrast.adapters.graph:GAT", "Graph attention network", "arXiv:1710.10903", **graphs),
        EncoderRecord(
            "resnet18",
            f"{home}:resnet18",
            "torchvision's ResNet-18, with a stem for small images if asked",
            "arXiv:1512.03385",
            extra="kontrast[vision]",
            adapter="vision",
        ),
    ]


@kontrast.hookimpl
def kontrast_augmenters() -> list[AugmenterRecord]:
    """Return the augmenters of our domains."""
    home, graphs = "kontrast.adapters.graph", {"extra": "kontrast[graph]", "adapter": "graph"}
    paper = "arXiv:2010.13902"
    return [
        AugmenterRecord(
            "graphcl-views", f"{home}:graphcl_views", "A graph and one of four augmentations of it", paper, **graphs
        ),
        AugmenterRecord("node-dropping", f"{home}:NodeDropping", "A share of each graph's nodes goes", paper, **graphs),
        AugmenterRecord(
            "edge-perturbation", f"{home}:EdgePerturbation", "Edges go, and as many new ones come", paper, **graphs
        ),
        AugmenterRecord(
            "attribute-masking", f"{home}:AttributeMasking", "Features of some nodes become noise", paper, **graphs
        ),
        AugmenterRecord(
            "edge-dropping", f"{home}:EdgeDropping", "Each edge goes with one chance", "arXiv:2006.04131", **graphs
        ),
        AugmenterRecord(
            "ego-subgraphs", f"{home}:EgoSubgraphs", "Walks with restart around a node", "arXiv:2006.09963", **graphs
        ),
        AugmenterRecord(
            "feature-masking", f"{home}:FeatureMasking", "Features hidden on all nodes", "arXiv:2006.04131", **graphs
        ),
        AugmenterRecord(
            "grace-views", f"{home}:grace_views", "Edges dropped and features hidden", "arXiv:2006.04131", **graphs
        ),
        AugmenterRecord("subgraph", f"{home}:Subgraph", "A part grown from a random node", paper, **graphs),
        AugmenterRecord(
            "affine-views",
            "kontrast.adapters.vision:AffineViews",
            "Crop, shift, scale, rotation, brightness and contrast, batched",
            adapter="vision",
        ),
    ]
