"""
A scikit-learn pipeline
=======================

A pretrained network is a step of a pipeline like any other. The labels of 60 of 1,437 digits are
known here; pretraining uses all digits. A grid search over the epochs of pretraining asks whether
pretraining pays.
"""

import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from pretrain.estimators import PretrainedClassifier

X, y = load_digits(return_X_y=True)
X = MinMaxScaler().fit_transform(X)
X, X_test, y, y_test = train_test_split(X, y, test_size=0.2, random_state=0, stratify=y)
labeled, unlabeled, labels, _ = train_test_split(X, y, train_size=60, random_state=0, stratify=y)

# %%
# The grid has the network without pretraining, 0 epochs of it, beside two that are pretrained.

classifier = PretrainedClassifier((100,), activation="sigmoid", learning_rate=0.01, random_state=0)
grid = {"pretrainedclassifier__pretraining_epochs": [0, 5, 20]}
search = GridSearchCV(make_pipeline(classifier), grid, cv=3)
search.fit(labeled, labels, pretrainedclassifier__X_unlabeled=unlabeled)
table = pd.DataFrame({"epochs": grid["pretrainedclassifier__pretraining_epochs"]})
table["accuracy"] = search.cv_results_["mean_test_score"]
print(table.to_string(index=False))

# %%
# The best of the three on the test digits:

print(f"accuracy on {len(y_test)} test digits: {search.score(X_test, y_test):.1%}")
