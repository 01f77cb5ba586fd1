"""What this package provides. Light: nothing here imports torch."""

import kontrast
from kontrast import (
    AdapterRecord,
    AugmenterRecord,
    EncoderRecord,
    MethodRecord,
    ObjectiveRecord,
    ProbeRecord,
    SamplerRecord,
)


@kontrast.hookimpl
def kontrast_adapters() -> list[AdapterRecord]:
    """Return the domain."""
    return [AdapterRecord("recsys", "kontrast_recsys.data:RecsysAdapter", "Users and the items they chose")]


@kontrast.hookimpl
def kontrast_encoders() -> list[EncoderRecord]:
    """Return the encoder."""
    return [
        EncoderRecord(
            "lightgcn",
            "kontrast_recsys.encoder:LightGCN",
            "Embeddings averaged over the user-item graph",
            "arXiv:2002.02126",
            adapter="recsys",
        )
    ]


@kontrast.hookimpl
def kontrast_augmenters() -> list[AugmenterRecord]:
    """Return the augmenter."""
    return [
        AugmenterRecord(
            "sgl-views",
            "kontrast_recsys.augment:SGLViews",
            "The graph, and two copies of it that lack edges",
            "arXiv:2010.10783",
            adapter="recsys",
        )
    ]


@kontrast.hookimpl
def kontrast_methods() -> list[MethodRecord]:
    """Return the methods."""
    home = "kontrast_recsys.methods"
    return [
        MethodRecord(
            "clrec", f"{home}:clrec", "A user finds the item among queued ones", "arXiv:2005.12964", adapter="recsys"
        ),
        MethodRecord(
            "lightgcn", f"{home}:lightgcn", "Rank chosen items above others", "arXiv:2002.02126", adapter="recsys"
        ),
        MethodRecord(
            "sgl", f"{home}:sgl", "LightGCN, and two graphs agree on every node", "arXiv:2010.10783", adapter="recsys"
        ),
    ]


@kontrast.hookimpl
def kontrast_objectives() -> list[ObjectiveRecord]:
    """Return the objective."""
    home = "kontrast_recsys.objectives"
    return [ObjectiveRecord("bpr", f"{home}:BPR", "The chosen item above the one drawn", "arXiv:1205.2618")]


@kontrast.hookimpl
def kontrast_samplers() -> list[SamplerRecord]:
    """Return the samplers."""
    home = "kontrast_recsys.samplers"
    return [
        SamplerRecord(
            "all-entities", f"{home}:AllEntities", "Each node against all nodes of another graph", "arXiv:2010.10783"
        ),
        SamplerRecord("clicks", f"{home}:Clicks", "A user against the items of the batch", "arXiv:2005.12964"),
        SamplerRecord("ranking", f"{home}:Ranking", "A user's chosen item against one drawn", "arXiv:1205.2618"),
    ]


@kontrast.hookimpl
def kontrast_probes() -> list[ProbeRecord]:
    """Return the probe."""
    return [
        ProbeRecord(
            "ranking", "kontrast_recsys.evaluate:ranking", "Recall and nDCG of the items recommended", adapter="recsys"
        )
    ]
