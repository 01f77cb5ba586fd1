"""The domains kontrast brings along. Light: nothing here imports torch."""

import kontrast
from kontrast import AdapterRecord, AugmenterRecord, EncoderRecord, ProbeRecord


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
            "timeseries",
            "kontrast.adapters.timeseries:TimeSeriesAdapter",
            "Time series [B, T, C]; NaN is what is missing",
            extra="kontrast[timeseries]",
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
    series = "kontrast.adapters.timeseries"
    return [
        EncoderRecord(
            "dilated-cnn",
            f"{series}:DilatedCNN",
            "TS2Vec's residual blocks of dilated convolutions",
            "arXiv:2106.10466",
            adapter="timeseries",
        ),
        EncoderRecord(
            "inception-time",
            f"{series}:InceptionTime",
            "Convolutions of several widths side by side",
            "arXiv:1909.04939",
            adapter="timeseries",
        ),
        EncoderRecord(
            "series-transformer",
            f"{series}:SeriesTransformer",
            "A small transformer over time steps",
            "arXiv:1706.03762",
            adapter="timeseries",
        ),
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
        *_series_augmenters(),
        AugmenterRecord("identity", "kontrast:Identity", "Unchanged copies, of any domain's samples"),
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


@kontrast.hookimpl
def kontrast_probes() -> list[ProbeRecord]:
    """Return the probes of our domains."""
    home, extra = "kontrast.adapters.timeseries.evaluate", "kontrast[timeseries]"
    return [
        ProbeRecord(
            "series-nearest",
            f"{home}:nearest",
            "The nearest training series, as for the UCR archive",
            "arXiv:2106.10466",
            extra=extra,
            adapter="timeseries",
            frozen=True,
        ),
        ProbeRecord(
            "series-svm",
            f"{home}:svm",
            "A support vector machine fitted to the training part, as for the UCR archive",
            "arXiv:1901.10738",
            extra=extra,
            adapter="timeseries",
            frozen=True,
        ),
    ]


def _series_augmenters() -> list[AugmenterRecord]:
    home, um = "kontrast.adapters.timeseries", "arXiv:1706.00527"
    return [
        AugmenterRecord(name, f"{home}:{factory}", summary, paper, adapter="timeseries")
        for name, factory, summary, paper in (
            ("channel-dropping", "ChannelDropping", "Some channels become zero", ""),
            ("frequency-masking", "FrequencyMasking", "Some frequencies are taken out", "arXiv:2302.09292"),
            ("jitter", "Jitter", "Normal noise on every value", um),
            ("magnitude-warp", "MagnitudeWarp", "Times a smooth curve around 1", um),
            ("neighbor-windows", "NeighborWindows", "A window, some near it, some far away", "arXiv:2106.00750"),
            ("overlapping-crops", "OverlappingCrops", "Two crops that share a stretch", "arXiv:2106.10466"),
            ("permutation", "Permutation", "Pieces in another order", um),
            ("scaling", "Scaling", "Each channel times a number around 1", um),
            ("series-views", "simclr_views", "Warped, scaled and with noise, for SimCLR and the like", um),
            ("time-masking", "TimeMasking", "Some time steps go missing", ""),
            ("time-warp", "TimeWarp", "Time runs faster here and slower there", um),
        )
    ]
