import base64
import random
import re

import pytest

from expander_sae.activations.near_duplicates import GrowingFilter, NearDuplicateFilter, word_grams
from expander_sae.activations.package_texts import read_package_texts
from expander_sae.rng import Integers


def plain_grams(text, characters):
    words = "".join(c if c.isalnum() or c == "_" else " " for c in text[:characters].lower()).split()
    if len(words) < 8:
        return {tuple(words)}
    return {tuple(words[i : i + 8]) for i in range(len(words) - 7)}


def related_texts(count):
    """Texts that share runs of words with each other in varying amounts."""
    draw = random.Random(0)
    stock = [f"w{i}" for i in range(300)]
    texts = []
    for _ in range(count):
        words = []
        while len(words) < 40:
            start, length = draw.randrange(280), draw.choice([3, 8, 12, 20])
            words += stock[start : start + length]
        texts.append(" ".join(words))
    return texts


def test_grams_count_as_the_tuples_of_words_do():
    for text in [*related_texts(20), "Short, text!", "", "a b c d e f g H", "a b c d e f g h i"]:
        for characters in (50, 700):
            assert len(word_grams(text, characters)) == len(plain_grams(text, characters))
    assert word_grams("A, b c d e f g h", 700) == word_grams("a b  c d e f g H!", 700)
    assert word_grams("a b c", 700) != word_grams("a c b", 700)


def test_gram_hash_is_the_same_in_every_process():
    assert word_grams("one two three four five six seven eight", 700) == {6425387082507303187}


@pytest.mark.parametrize("max_overlap", [0.0, 0.2, 0.5, 1.0])
def test_filter_equals_comparison_of_all_pairs(max_overlap):
    texts = related_texts(80)
    admit = NearDuplicateFilter(max_overlap)
    for place, text in enumerate(texts):
        mine = plain_grams(text, 700)
        contained = [
            len(mine & other) / min(len(mine), len(other))
            for other in (plain_grams(earlier, 700) for earlier in texts[:place])
        ]
        assert admit.admit(word_grams(text, 700)) == all(share <= max_overlap for share in contained)


def test_duplicate_of_a_dropped_document_is_dropped_too():
    words = [f"w{i}" for i in range(60)]
    chain = [" ".join(words[start : start + 24]) for start in (0, 12, 24)]
    filter_ = NearDuplicateFilter(0.2)
    assert [filter_.admit(word_grams(text, 700)) for text in chain] == [True, False, False]


def test_order_of_earlier_documents_is_all_that_decides():
    texts = [related_texts(60)[i] for i in Integers(1, "corpus").permutation(60)]
    long, short = NearDuplicateFilter(0.2), NearDuplicateFilter(0.2)
    kept = [long.admit(word_grams(text, 700)) for text in texts]
    assert [short.admit(word_grams(text, 700)) for text in texts[:30]] == kept[:30]


def near_and_far(count):
    """Texts of 100 words of which every third has 30 to 90 words of an earlier one, and the others none."""
    draw = random.Random(1)
    texts = []
    for number in range(count):
        words = [f"w{draw.randrange(10**9)}" for _ in range(100)]
        if number % 3 == 2:
            length = draw.randrange(30, 90)
            words[:length] = draw.choice(texts).split()[:length]
        texts.append(" ".join(words))
    return texts


def admitted(texts, filter_):
    return [filter_.admit(word_grams(text, 1200), len(text.split())) for text in texts]


def test_sketches_find_the_groups_that_are_found_exactly():
    """Where texts share a quarter and more of their runs, or none."""
    texts = near_and_far(600)
    exact, sketched = GrowingFilter(0.1, 10**9), GrowingFilter(0.1, 0)
    found = admitted(texts, sketched)
    assert found == admitted(texts, exact)
    assert found == [number % 3 != 2 for number in range(600)]
    assert (exact.exact_documents, sketched.exact_documents) == (None, 0)


@pytest.mark.parametrize("max_overlap", [0.0, 1.0])
def test_sketches_keep_to_the_ends_of_the_range(max_overlap):
    """At 1 nothing is a near-duplicate, and at 0 whatever shares something that was found."""
    texts = near_and_far(90)
    assert admitted(texts, GrowingFilter(max_overlap, 0)) == [
        max_overlap == 1 or number % 3 != 2 for number in range(90)
    ]


def test_what_is_exact_and_what_is_sketched_follows_from_earlier_documents():
    """So no decision changes where a corpus is read on, or where it has been read exactly until later."""
    texts = near_and_far(300)
    whole = GrowingFilter(0.1, 12_000)
    found = admitted(texts, whole)
    assert whole.exact_documents == 120 and found == [number % 3 != 2 for number in range(300)]
    for count in (100, 121, 200):
        assert admitted(texts[:count], GrowingFilter(0.1, 12_000)) == found[:count]
    assert whole._exact is None, "no 8-word sequence is held any longer"


@pytest.fixture(scope="module")
def pandas_texts():
    return read_package_texts("docstrings", ["pandas"]).texts


def test_on_built_in_texts_nearly_all_decisions_agree(pandas_texts):
    """With many that share a little less or more than a fifth."""
    exact, sketched = GrowingFilter(0.2, 10**9), GrowingFilter(0.2, 0)
    grams = [word_grams(text, 700) for text in pandas_texts[:1000]]
    pairs = [(exact.admit(each, 1), sketched.admit(each, 1)) for each in grams]
    assert 200 < sum(one for one, _ in pairs) < 800
    assert sum(one != other for one, other in pairs) < 0.03 * len(pairs)


CHINESE = (
    "我昨天去图书馆借了三本书其中一本讲的是宋代的城市生活"
    "另外两本是关于数学史的我打算在周末把它们都读完然后写一篇短文介绍给我的同学们"
)
JAPANESE = (
    "昨日は図書館で本を三冊借りました一冊は江戸時代の町の暮らしについての本で"
    "残りの二冊は数学の歴史についての本です週末に読みます"
)
THAI = "เมื่อวานฉันไปห้องสมุดและยืมหนังสือสามเล่มเล่มหนึ่งเกี่ยวกับชีวิตในเมืองสมัยก่อนอีกสองเล่มเกี่ยวกับประวัติศาสตร์คณิตศาสตร์"
KHMER = "ម្សិលមិញខ្ញុំបានទៅបណ្ណាល័យហើយខ្ចីសៀវភៅបីក្បាលមួយក្បាលអំពីជីវិតទីក្រុងសម័យបុរាណពីរក្បាលទៀតអំពីប្រវត្តិគណិតវិទ្យា"
GENE = "".join(random.Random(0).choices("ACGT", k=300))
BASE64 = base64.b64encode(random.Random(0).randbytes(200)).decode()


def contained(one, other, characters=700):
    one, other = (word_grams(text, characters) for text in (one, other))
    return len(one & other) / min(len(one), len(other))


@pytest.mark.parametrize("text", [CHINESE, JAPANESE, THAI, KHMER, GENE, BASE64])
def test_a_change_in_text_without_blanks_leaves_a_near_duplicate(text):
    """Such a text was one word, and equal only to itself."""
    place = len(text) // 3
    other = text[:place] + "。" + text[place + 1 :]
    assert contained(text, other) > 0.5
    assert contained(text, "題" + text) > 0.5
    assert contained(CHINESE, text[::-1]) == 0, "other texts share nothing"


def test_pieces_of_chinese_count_as_runs_of_its_characters():
    assert len(word_grams(CHINESE, 700)) == len({CHINESE[i : i + 8] for i in range(len(CHINESE) - 7)})
    assert word_grams(CHINESE[:20] + "，" + CHINESE[20:], 700) == word_grams(CHINESE, 700)
    assert len(word_grams(CHINESE[:7], 700)) == 1


def test_as_much_chinese_is_compared_as_holds_the_tokens_of_a_context():
    """Texts that start alike and go on otherwise: what is read of them is the same."""
    draw = random.Random(0)
    others = ["".join(chr(draw.randrange(0x4E00, 0x9FA5)) for _ in range(2000)) for _ in range(2)]
    start = others[0][:100]
    assert contained(start + others[0][100:], start + others[1]) > 0.2
    assert word_grams(others[0], 700) == word_grams(others[0][:233], 700)


def test_english_that_quotes_chinese_is_compared_by_its_words():
    quoting = (
        "the phrase 今天天气非常好 stands in a text of many english words about many other things and more "
        * 3
    )
    assert len(word_grams(quoting, 700)) == len(plain_grams(quoting, 700))


def test_groups_of_the_built_in_corpus_are_those_of_words_alone(pandas_texts):
    """No docstring has a share of Chinese or a word so long that it would be taken apart."""
    for text in pandas_texts:
        words = re.findall(r"\w+", text[:700].lower())
        assert len(word_grams(text, 700)) == max(
            1, len({tuple(words[i : i + 8]) for i in range(len(words) - 7)})
        )
