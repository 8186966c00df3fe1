"""Makes tests/data/local_reference.json: texts, and what the Python implementation makes of them.

Word pieces come from Hugging Face's `tokenizers`, vectors from `onnxruntime` on a graph of standard operators, one text
at a time; every vector is first compared with a 64-bit numpy forward pass that shares no code with the graph.

    pip install numpy onnx onnxruntime tokenizers
    python benches/local_reference.py MODEL_DIR tests/data/local_reference.json
"""

import json
import sys

import numpy as np
import onnxruntime
import tokenizers
from local_model_onnx import Reference, embed_numpy

PARAGRAPH = (
    "A text search engine reads every document once, cuts it into words, and writes down for each word where it "
    "was found. A semantic one writes down a point in a space of a few hundred dimensions instead, and hopes that "
    "texts which mean the same come to lie close together, whatever words they use. "
)

TEXTS = [
    # Short ones.
    "",
    " ",
    "\t\n\r ",
    "a",
    "I",
    "42",
    "hello",
    "Hello, World!",
    "This is an example sentence",
    "Each sentence is converted",
    "How do I reset my password?",
    "To change the secret you sign in with, open the account page.",
    "The cat sits on the mat.",
    "Shares of the company fell by 3.5% on Tuesday after it cut its forecast.",
    # Mixed case, punctuation, numbers, code.
    "MiXeD CaSe TeXt WITH SHOUTING and whispering",
    "Wait... what?! (No; really -- \"yes\"/'no') [maybe] {sure} <ok> @home #tag $5 50% a&b a*b a_b a^b a~b `x` a|b a\\b",
    "3.14159 1,000,000 1e-12 0x1F 2024-02-29T23:59:59Z +1 (555) 010-9999",
    "SELECT id, title FROM article WHERE body ILIKE '%postgres%' ORDER BY id LIMIT 10;",
    "fn main() { println!(\"{}\", (1..=10).map(|x| x * x).sum::<i32>()); }",
    "https://example.com/path/to/page?query=semantic+search&lang=en#top",
    "someone@example.com wrote: see attachment.pdf",
    "....................",
    "!",
    "- - -",
    # Marks of the tokenizer itself, written out.
    "[CLS] a text that names [SEP] the marks [MASK] [PAD] [UNK]",
    "[cls] [Sep] [[SEP]] [CLS",
    "##ing un##believable",
    # Latin with accents, composed and not; ligatures; dotless and dotted i; sharp s.
    "Crème brûlée, façade, naïve, Ångström, Łódź, Straße, smørrebrød",
    "Cre\u0300me bru\u0302le\u0301e, fac\u0327ade, nai\u0308ve, A\u030angstro\u0308m",
    "İstanbul'da ılık bir akşam, DİYARBAKIR",
    "ﬁne ﬂuﬀ Ǆ ǆ ŉ ½ ² ™ ℡ Ⅷ",
    "z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324a\u0310\u0309l\u0334go",
    # Other scripts.
    "Где находится ближайшая библиотека? Ёлка и ЙОГУРТ.",
    "Πού είναι η βιβλιοθήκη; ΟΔΟΣ ὈΔΥΣΣΕΎΣ",
    "机器学习是人工智能的一个分支。",
    "日本語のテキストを検索する。カタカナ、ガギグ、ﾊﾝｶｸ",
    "데이터베이스에서 의미로 검색하기",
    "أين تقع أقرب مكتبة؟ العَرَبِيَّة ١٢٣",
    "איפה הספרייה הקרובה? שָׁלוֹם",
    "निकटतम पुस्तकालय कहाँ है? हिन्दी १२३",
    "ใกล้ที่สุดห้องสมุดอยู่ที่ไหน",
    "நூலகம் எங்கே உள்ளது? বাংলা ভাষা",
    "სად არის ბიბლიოთეკა? Ո՞ւր է գրադարանը",
    "አቅራቢያ ያለው ቤተ መጻሕፍት የት ነው",
    "Rare Chinese: \U00020000 \U0002a6df \U0002b740 \U0002b820 \U0002b920 \U0002f800 \uf900 \u3400 \u9fff",
    # Emoji, symbols, joined sequences.
    "I love this 😀👍🏽 so much ❤️ 👩‍👩‍👧‍👦 🇩🇪",
    "😀",
    "∑ x² ≤ ∞ → ∀ε>0 ∃δ ± × ÷ √2 €100 £5 ¥7 ₿1",
    "“quoted” ‘text’ – with — dashes… and «guillemets» ・ 、 。 ！ ？",
    # Control, format and space characters.
    "bell\u0007 null\u0000 esc\u001b[31mred\u001b[0m del\u007f nel\u0085end",
    "zero\u200bwidth joi\u200dner soft\u00adhyphen bom\ufeff rtl\u202e mark\u2028line\u2029para",
    "no\u00a0break thin\u2009space ideographic\u3000space \ufffd replaced \ue000 private",
    # Very long words.
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "a" * 100,
    "a" * 101,
    "short " + "x1y2z3" * 50 + " short",
    # Up to the limit, just at it, and beyond it.
    PARAGRAPH,
    PARAGRAPH * 3,
    "word " * 254,
    "word " * 255,
    PARAGRAPH * 6,
    "нейронная сеть " * 100,
    "!?" * 200,
    "tail [SEP] " * 130,
]


def main(model_dir, out):
    reference = Reference(model_dir, 2, fused=False)
    reference.tokenizer.no_padding()
    texts, lowest = [], 1.0
    for text in TEXTS:
        encoded = reference.tokenizer.encode(text)
        vector = reference.embed([text])[0].astype(np.float64)
        vector /= np.linalg.norm(vector)
        lowest = min(lowest, float(vector @ embed_numpy(model_dir, encoded.ids)))
        texts.append(
            {
                "text": text,
                "ids": encoded.ids,
                "truncated": bool(encoded.overflowing),
                "vector": [round(number, 6) for number in vector.tolist()],
            }
        )
    print(f"{len(texts)} texts; lowest cosine between onnxruntime and numpy: {lowest:.9f}")
    if lowest < 0.999999:
        sys.exit("the two implementations disagree; nothing written")
    made_with = f"onnxruntime {onnxruntime.__version__}, tokenizers {tokenizers.__version__}, numpy {np.__version__}"
    rows = ",\n".join(json.dumps(text, separators=(",", ":")) for text in texts)
    with open(out, "w", encoding="ascii") as file:
        file.write(f'{{"model":"all-MiniLM-L6-v2","made_with":{json.dumps(made_with)},"texts":[\n{rows}\n]}}\n')


if __name__ == "__main__":
    main(*sys.argv[1:])
