"""What kontrast's own plugins provide. Light: nothing here imports torch."""

import kontrast
from kontrast import (
    MethodRecord,
    ObjectiveRecord,
    ObserverRecord,
    OptimizerRecord,
    ProbeRecord,
    RecipeRecord,
    SamplerRecord,
)


@kontrast.hookimpl
def kontrast_methods() -> list[MethodRecord]:
    """Return our methods."""
    home = "kontrast.plugins"
    return [
        MethodRecord(
            "byol",
            f"{home}.byol:byol",
            "Predict a momentum target of the other view; no negatives",
            "arXiv:2006.07733",
        ),
        MethodRecord("clip", f"{home}.clip:clip", "An image finds its text, a text its image", "arXiv:2103.00020"),
        MethodRecord(
            "cpc",
            f"{home}.cpc:cpc",
            "The past predicts the latents of later steps",
            "arXiv:1807.03748",
            adapter="timeseries",
            encoder={"name": "dilated-cnn", "depth": 1},  # one that sees far solves the task without learning
            augmenter={"name": "identity", "num_views": 1},
        ),
        MethodRecord(
            "gcc",
            f"{home}.gcc:gcc",
            "Two walks around one node agree against a queue of others",
            "arXiv:2006.09963",
            adapter="graph",
            encoder="structural-gin",
            augmenter="ego-subgraphs",
        ),
        MethodRecord(
            "grace",
            f"{home}.grace:grace",
            "A node's two copies agree against all nodes",
            "arXiv:2006.04131",
            adapter="graph",
            encoder={"name": "gcn", "num_layers": 2, "all_layers": False, "batch_norm": False},
            augmenter="grace-views",
        ),
        MethodRecord(
            "graphcl",
            f"{home}.graphcl:graphcl",
            "A graph and its augmented copy agree against other graphs",
            "arXiv:2010.13902",
            adapter="graph",
            encoder="gin",
            augmenter="graphcl-views",
        ),
        MethodRecord(
            "infograph",
            f"{home}.infograph:infograph",
            "A graph knows its own nodes among others'",
            "arXiv:1908.01000",
            adapter="graph",
            encoder="gin",
            augmenter={"name": "identity", "num_views": 1},
        ),
        MethodRecord(
            "moco-v2",
            f"{home}.moco_v2:moco_v2",
            "A query finds its key among a queue of momentum keys",
            "arXiv:2003.04297",
        ),
        MethodRecord(
            "simclr",
            f"{home}.simclr:simclr",
            "Two copies agree against all others of the batch",
            "arXiv:2002.05709",
        ),
        MethodRecord(
            "tnc",
            f"{home}.tnc:tnc",
            "A window is like those near it, mostly unlike those far away",
            "arXiv:2106.00750",
            adapter="timeseries",
            augmenter="neighbor-windows",
        ),
        MethodRecord(
            "ts2vec",
            f"{home}.ts2vec:ts2vec",
            "A time step agrees with itself in another context",
            "arXiv:2106.10466",
            adapter="timeseries",
            encoder="dilated-cnn",
            augmenter="overlapping-crops",
        ),
        MethodRecord(
            "vicreg",
            f"{home}.vicreg:vicreg",
            "Variance, invariance, covariance of the whole batch",
            "arXiv:2105.04906",
        ),
    ]


@kontrast.hookimpl
def kontrast_objectives() -> list[ObjectiveRecord]:
    """Return our objectives."""
    home = "kontrast.plugins.objectives"
    return [
        ObjectiveRecord(
            "alignment-uniformity",
            f"{home}:AlignmentUniformity",
            "Positives close, negatives spread over the sphere",
            "arXiv:2005.10242",
        ),
        ObjectiveRecord(
            "cosine-regression", f"{home}:CosineRegression", "2 - 2 cos of prediction and target", "arXiv:2006.07733"
        ),
        ObjectiveRecord(
            "dcl", f"{home}:DCL", "InfoNCE with the positive left out of the denominator", "arXiv:2110.06848"
        ),
        ObjectiveRecord("dclw", f"{home}:DCLW", "DCL that asks more of positives far apart", "arXiv:2110.06848"),
        ObjectiveRecord(
            "graphcl",
            f"{home}:GraphCLContrast",
            "Each graph's views against other graphs' second views",
            "arXiv:2010.13902",
        ),
        ObjectiveRecord(
            "info-nce", f"{home}:InfoNCE", "Cross entropy of each positive against the negatives", "arXiv:1807.03748"
        ),
        ObjectiveRecord(
            "jensen-shannon",
            f"{home}:JensenShannon",
            "Logistic regression, a mean for each kind of pair",
            "arXiv:1808.06670",
        ),
        ObjectiveRecord("n-pair", f"{home}:NPair", "InfoNCE on dot products, lengths held small", "NeurIPS 2016, Sohn"),
        ObjectiveRecord(
            "nt-xent", f"{home}:NTXent", "Cross entropy of the positive against all others", "arXiv:2002.05709"
        ),
        ObjectiveRecord(
            "pairwise-contrastive",
            f"{home}:PairwiseContrastive",
            "Squared distances, squared hinges to a margin",
            "CVPR 2006, Hadsell et al.",
        ),
        ObjectiveRecord(
            "positive-unlabelled",
            f"{home}:PositiveUnlabelled",
            "Positives against pairs of which some are positive",
            "arXiv:2106.00750",
        ),
        ObjectiveRecord("siglip", f"{home}:SigLIP", "A sigmoid for every pair, no softmax", "arXiv:2303.15343"),
        ObjectiveRecord("soft-triplet", f"{home}:SoftTriplet", "Triplets without a margin", "arXiv:1703.07737"),
        ObjectiveRecord(
            "sup-con", f"{home}:SupCon", "Everything of one's class against all others", "arXiv:2004.11362"
        ),
        ObjectiveRecord(
            "temperature-free",
            f"{home}:TemperatureFreeInfoNCE",
            "InfoNCE on 2 artanh of the cosine",
            "arXiv:2501.17683",
        ),
        ObjectiveRecord(
            "triplet", f"{home}:Triplet", "A positive closer than a negative, by a margin", "arXiv:1503.03832"
        ),
        ObjectiveRecord(
            "vicreg", f"{home}:VICReg", "Invariance, variance hinge, squared covariances", "arXiv:2105.04906"
        ),
    ]


@kontrast.hookimpl
def kontrast_samplers() -> list[SamplerRecord]:
    """Return the core's samplers and our own."""
    home = "kontrast.plugins.samplers"
    return [
        SamplerRecord("debiased", "kontrast:Debiased", "Correct for negatives that are none", "arXiv:2007.00224"),
        SamplerRecord("elements", "kontrast:Elements", "Elements inside samples in the place of samples"),
        SamplerRecord(
            "guided-negatives",
            f"{home}:GuidedNegatives",
            "Leave out what a guide finds too similar",
            "arXiv:2402.16829",
        ),
        SamplerRecord("hard-negatives", "kontrast:HardNegatives", "Weigh negatives by their score", "arXiv:2010.04592"),
        SamplerRecord(
            "hardest-negatives", "kontrast:HardestNegatives", "The top-scoring negatives alone", "arXiv:1503.03832"
        ),
        SamplerRecord("in-batch", "kontrast:InBatch", "All other rows of the batch, of all processes"),
        SamplerRecord(
            "local-global",
            f"{home}:LocalGlobal",
            "Each element against the pooled rows of all samples",
            "arXiv:1808.06670",
        ),
        SamplerRecord(
            "nearest-neighbors",
            f"{home}:NearestNeighbors",
            "The nearest past embedding as positive",
            "arXiv:2104.14548",
        ),
        SamplerRecord("no-duplicates", f"{home}:NoDuplicates", "No label twice in a batch"),
        SamplerRecord("per-class", f"{home}:PerClass", "Several samples of each class in a batch"),
        SamplerRecord("positives", "kontrast:Positives", "The other copies of one's sample alone"),
        SamplerRecord("queue", "kontrast:Queue", "Past embeddings as further negatives", "arXiv:1911.05722"),
        SamplerRecord("same-group", f"{home}:SameGroup", "Batches of one group each"),
        SamplerRecord(
            "semi-hard-negatives",
            "kontrast:SemiHardNegatives",
            "For each positive the hardest negative below it",
            "arXiv:1503.03832",
        ),
    ]


@kontrast.hookimpl
def kontrast_observers() -> list[ObserverRecord]:
    """Return our observers."""
    return [
        ObserverRecord(
            "online-knn",
            "kontrast.plugins.online_knn:OnlineKNN",
            "kNN accuracy after each epoch, on labelled data of the run",
        ),
        ObserverRecord("progress", "kontrast.plugins.progress:ProgressBar", "A bar, or a line per epoch"),
        ObserverRecord(
            "tensorboard",
            "kontrast.plugins.tensorboard:TensorBoard",
            "Every step's metrics as event files in the run's folder",
            extra="kontrast[tensorboard]",
        ),
    ]


@kontrast.hookimpl
def kontrast_optimizers() -> list[OptimizerRecord]:
    """Return the core's optimizers."""
    return [
        OptimizerRecord("adamw", "kontrast:AdamW", "Adam with decoupled weight decay", "arXiv:1711.05101"),
        OptimizerRecord(
            "lars", "kontrast:LARS", "A trust ratio for each weight, for large batches", "arXiv:1708.03888"
        ),
        OptimizerRecord("sgd", "kontrast:SGD", "SGD with momentum"),
    ]


@kontrast.hookimpl
def kontrast_probes() -> list[ProbeRecord]:
    """Return the core's probes."""
    home = "kontrast.evaluate"
    return [
        ProbeRecord("finetune", f"{home}:finetune", "The encoder trained on with labels", "arXiv:2002.05709"),
        ProbeRecord(
            "knn",
            f"{home}:knn",
            "A vote of the nearest training samples",
            "arXiv:1805.01978",
            frozen=True,
            usual={"k": (20, 200)},
        ),
        ProbeRecord("linear", f"{home}:linear", "Logistic regression", extra="kontrast[eval]", frozen=True),
        ProbeRecord(
            "svm",
            f"{home}:svm",
            "Cross-validated over the training part, as for TU graphs",
            "arXiv:1908.01000",
            extra="kontrast[eval]",
            frozen=True,
        ),
    ]


@kontrast.hookimpl
def kontrast_recipes() -> list[RecipeRecord]:
    """Return the settings of our examples and benchmarks."""
    home = "kontrast.plugins:recipes"
    return [
        RecipeRecord("byol-digits", f"{home}/byol-digits.yaml", "BYOL on 8 x 8 digits", "arXiv:2006.07733"),
        RecipeRecord(
            "graphcl-tu",
            f"{home}/graphcl-tu.yaml",
            "GraphCL's unsupervised setting; give --data a TU set",
            "arXiv:2010.13902",
        ),
        RecipeRecord("moco-v2-digits", f"{home}/moco-v2-digits.yaml", "MoCo v2 on 8 x 8 digits", "arXiv:2003.04297"),
        RecipeRecord("simclr-digits", f"{home}/simclr-digits.yaml", "SimCLR on 8 x 8 digits", "arXiv:2002.05709"),
        RecipeRecord("vicreg-digits", f"{home}/vicreg-digits.yaml", "VICReg on 8 x 8 digits", "arXiv:2105.04906"),
    ]
