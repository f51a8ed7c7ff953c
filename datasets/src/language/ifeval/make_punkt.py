"""punkt-english.txt.gz: the English parameters of NLTK's Punkt (Kiss and Strunk 2006), from the JSON that the crate `punkt`
1.0.5 (MIT or Apache-2.0) has of NLTK's model.

    cargo download punkt==1.0.5, then: python make_punkt.py punkt-1.0.5/src/data/english.json

Lines of a kind, a tab, and values: `abbreviation w`, `starter w`, `collocation w v`, `context w flags`.
"""

import gzip
import json
import sys

model = json.load(open(sys.argv[1]))
lines = [f"abbreviation\t{word}" for word in sorted(model["abbrev_types"])]
lines += [f"starter\t{word}" for word in sorted(model["sentence_starters"])]
lines += [f"collocation\t{first}\t{second}" for first, second in sorted(model["collocations"])]
lines += [f"context\t{word}\t{flags}" for word, flags in sorted(model["ortho_context"].items())]
with open("punkt-english.txt.gz", "wb") as file:
    file.write(gzip.compress(("\n".join(lines) + "\n").encode(), 9, mtime=0))
