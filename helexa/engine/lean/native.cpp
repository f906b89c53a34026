// The layers of a packed model of the usual shape, for CPUs with AVX2.
//
// Weights have 4 bits, groups of 32 of a row share a scale and a zero; activations are rounded to 8 bits,
// groups of 32 with a scale, and multiplied as whole numbers.  Texts attend in 16 bits.  All else is float32.
// `pack` lays weights out: 16 rows together, in each of their groups 8 bytes of every row as two vectors of
// 8 rows.

#include <immintrin.h>
#include <omp.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

namespace {

constexpr long GROUP = 32, ROWS = 16, MOST_TOKENS = 4, TOKENS_AT_ONCE = 128, KEYS_AT_ONCE = 64;
constexpr long QUERIES = 32, VECTORS = QUERIES / 8, MOST_DIM = 256;
constexpr long TILES_AT_ONCE = 16;  // of queries: what they have seen fits the second cache
constexpr long LEAST_WIDE = 24;  // tokens that are worth unpacking weights once for all of them
constexpr long GROUPS_AT_ONCE = 24;  // that are unpacked: they fit the innermost cache
constexpr int HEADS_AT_ONCE = 3;  // that one token attends with
constexpr long LEAST_ROWS = 12;  // that are worth attending together
constexpr long LEAST_SHARE = 16;  // tokens that are worth a thread of their own
constexpr long GROUP_BYTES = 2 * (GROUP / 2 * 8 + 8 * 4);  // of 16 rows: levels, scales, zeros

constexpr float LOG2_E = 1.44269504f;

using Vector = __m256;

struct Weight {
    const uint8_t* data;
    const float* bias;
    long rows, columns, planes;  // with two planes the same inputs are multiplied twice
};

struct Layer {
    const float *before_attention, *before_mlp, *query_norm, *key_norm;
    Weight input, output, gate, down;
    long heads, groups, dim;
    float epsilon, head_epsilon, scaling;
};

// Activations [tokens, columns] in 8 bits; of each group its scale, and that times the sum of its levels.
struct Levels {
    long columns;
    std::unique_ptr<int8_t[]> levels;
    std::unique_ptr<float[]> scales, sums;

    Levels(long tokens, long columns)
        : columns(columns), levels(new int8_t[tokens * columns]),
          scales(new float[tokens * groups()]), sums(new float[tokens * groups()]) {}

    long groups() const { return columns / GROUP; }
};

float sum(Vector v) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

float highest(Vector v) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

// Have `size` floats brought near: the next page of memory is not foreseen otherwise.
void fetch(const float* from, long size) {
    for (long i = 0; i < size; i += 16) _mm_prefetch(reinterpret_cast<const char*>(from + i), _MM_HINT_T0);
}

// 2^x for x < 128: a power of 2 times 2^r, |r| <= 1/2, the sum of (r ln 2)^k / k!, right to about 2 units in
// the last place.
Vector power_of_2(Vector x) {
    x = _mm256_max_ps(_mm256_set1_ps(-126), x);  // so that what is not a number stays so
    Vector n = _mm256_round_ps(x, 8), r = _mm256_sub_ps(x, n);
    const float terms[] = {1.3333558e-3f, 9.6181291e-3f, 5.5504109e-2f, 0.24022651f, 0.69314718f, 1};
    Vector p = _mm256_set1_ps(1.5403530e-4f);
    for (float term : terms) p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(term));
    __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power));
}

// One group of 32 floats to 8 bits.
void round_group(const Vector v[4], const Levels& to, long token, long group) {
    const Vector no_sign = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    Vector most = _mm256_setzero_ps();
    for (int i = 0; i < 4; i++) most = _mm256_max_ps(most, _mm256_and_ps(v[i], no_sign));
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    float top = _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
    Vector all = _mm256_add_ps(_mm256_add_ps(v[0], v[1]), _mm256_add_ps(v[2], v[3]));
    float scale = top / 127 + 0 * sum(all);  // what is not a number must not get lost
    Vector inverse = _mm256_set1_ps(top > 0 ? 127 / top : 0);
    __m256i q[4], total = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
        total = _mm256_add_epi32(total, q[i]);
    }
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    long at = token * to.groups() + group;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(&to.levels[at * GROUP]), bytes);
    to.scales[at] = scale;
    to.sums[at] = scale * sum(_mm256_cvtepi32_ps(total));
}

void round_row(const float* x, const Levels& to, long token, float factor, const float* weight) {
    for (long g = 0; g < to.groups(); g++) {
        Vector v[4];
        for (int i = 0; i < 4; i++) {
            long at = g * GROUP + i * 8;
            v[i] = _mm256_loadu_ps(x + at);
            if (weight) {
                v[i] = _mm256_mul_ps(v[i], _mm256_set1_ps(factor));
                v[i] = _mm256_mul_ps(v[i], _mm256_loadu_ps(weight + at));
            }
        }
        round_group(v, to, token, g);
    }
}

float inverse_root(const float* x, long size, float epsilon) {
    Vector squares = _mm256_setzero_ps();
    for (long i = 0; i < size; i += 8) {
        Vector v = _mm256_loadu_ps(x + i);
        squares = _mm256_fmadd_ps(v, v, squares);
    }
    return 1 / std::sqrt(sum(squares) / size + epsilon);
}

void norm_row(const float* x, const Levels& to, long token, const float* weight, float epsilon) {
    round_row(x, to, token, inverse_root(x, to.columns, epsilon), weight);
}

Vector widened(const uint8_t* bfloat16) {
    __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bfloat16));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

__m256i bytes_at(const uint8_t* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }

// A group of 16 rows as `pack` laid it out.  Of 8 rows, the first or the second half: their levels 4 i to
// 4 i + 3, their scales, and what a level of 0 stands for.
struct Packed {
    static constexpr long BYTES = GROUP_BYTES;

    static __m256i levels(const uint8_t* group, int i, int half) {
        __m256i two = bytes_at(group + i / 2 * 64 + half * 32);
        return _mm256_and_si256(i % 2 ? _mm256_srli_epi16(two, 4) : two, _mm256_set1_epi8(15));
    }
    static Vector scales(const uint8_t* group, int half) { return widened(group + 256 + 16 * half); }
    static Vector zeros(const uint8_t* group, int half) {
        return _mm256_fnmadd_ps(_mm256_set1_ps(8), scales(group, half), widened(group + 288 + 16 * half));
    }
};

// The same as it is multiplied, a byte for a level, so that many tokens need not unpack it each time.
struct Wide {
    static constexpr long BYTES = GROUP * ROWS + 2 * ROWS * sizeof(float);

    static __m256i levels(const uint8_t* group, int i, int half) {
        return bytes_at(group + i * 64 + half * 32);
    }
    static Vector scales(const uint8_t* group, int half) {
        return _mm256_castsi256_ps(bytes_at(group + 512 + 32 * half));
    }
    static Vector zeros(const uint8_t* group, int half) {
        return _mm256_castsi256_ps(bytes_at(group + 576 + 32 * half));
    }

    static void fill(uint8_t* to, const uint8_t* packed, long groups) {
        auto put = [](uint8_t* at, __m256i x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), x); };
        for (long g = 0; g < groups; g++, to += BYTES, packed += Packed::BYTES)
            for (int half = 0; half < 2; half++) {
#pragma GCC unroll 8
                for (int i = 0; i < 8; i++) put(to + i * 64 + half * 32, Packed::levels(packed, i, half));
                put(to + 512 + 32 * half, _mm256_castps_si256(Packed::scales(packed, half)));
                put(to + 576 + 32 * half, _mm256_castps_si256(Packed::zeros(packed, half)));
            }
    }
};

// out[T][16] += groups `first` to `last` of 16 rows of a weight, at `w`, times T tokens.
template <class Form, int T>
void multiply_tile(const uint8_t* w, const Levels& x, long first, long last, long token, float* out) {
    const __m256i ones = _mm256_set1_epi16(1);
    const long groups = x.groups();
    Vector sums[T][2];
    for (int t = 0; t < T; t++)
        for (int h = 0; h < 2; h++) sums[t][h] = _mm256_loadu_ps(out + t * ROWS + 8 * h);
    for (long g = first; g < last; g++, w += Form::BYTES) {
        const int8_t* levels = &x.levels[(token * groups + g) * GROUP];
        __m256i dot[T][2];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            __m256i a = Form::levels(w, i, 0), b = Form::levels(w, i, 1);
#pragma GCC unroll 4
            for (int t = 0; t < T; t++) {
                int32_t four;
                std::memcpy(&four, levels + t * groups * GROUP + 4 * i, 4);
                __m256i x4 = _mm256_set1_epi32(four);
                __m256i low = _mm256_maddubs_epi16(a, x4), high = _mm256_maddubs_epi16(b, x4);
                dot[t][0] = i ? _mm256_add_epi16(dot[t][0], low) : low;
                dot[t][1] = i ? _mm256_add_epi16(dot[t][1], high) : high;
                // In this order all fits the registers; compilers find another, a third slower.
                asm volatile("" : "+x"(dot[t][0]), "+x"(dot[t][1]));
            }
        }
        for (int h = 0; h < 2; h++) {
            Vector scale = Form::scales(w, h), zero = Form::zeros(w, h);
            for (int t = 0; t < T; t++) {
                long at = (token + t) * groups + g;
                Vector d = _mm256_cvtepi32_ps(_mm256_madd_epi16(dot[t][h], ones));
                Vector s = _mm256_mul_ps(scale, _mm256_set1_ps(x.scales[at]));
                sums[t][h] = _mm256_fmadd_ps(d, s, sums[t][h]);
                sums[t][h] = _mm256_fmadd_ps(zero, _mm256_set1_ps(x.sums[at]), sums[t][h]);
            }
        }
    }
    for (int t = 0; t < T; t++)
        for (int h = 0; h < 2; h++) _mm256_storeu_ps(out + t * ROWS + 8 * h, sums[t][h]);
}

// The same for any number of tokens.
template <class Form>
void multiply_groups(const uint8_t* w, const Levels& x, long first, long last, long tokens, float* out) {
    for (long token = 0; token < tokens; token += MOST_TOKENS, out += MOST_TOKENS * ROWS)
        switch (tokens - token) {
            case 1: multiply_tile<Form, 1>(w, x, first, last, token, out); break;
            case 2: multiply_tile<Form, 2>(w, x, first, last, token, out); break;
            case 3: multiply_tile<Form, 3>(w, x, first, last, token, out); break;
            default: multiply_tile<Form, 4>(w, x, first, last, token, out);
        }
}

// Block `block` of 16 rows times all tokens, into out[tokens][16].
void multiply_block(const Weight& weight, long block, const Levels& x, long tokens, float* out) {
    const long groups = x.groups();
    const uint8_t* w = weight.data + block * groups * weight.planes * Packed::BYTES;
    for (long i = 0; i < tokens * ROWS; i++) out[i] = weight.bias ? weight.bias[block * ROWS + i % ROWS] : 0;
    for (long plane = 0; plane < weight.planes; plane++)
        for (long first = 0, count; first < groups; first += count, w += count * Packed::BYTES) {
            count = groups - first < GROUPS_AT_ONCE ? groups - first : GROUPS_AT_ONCE;
            if (tokens < LEAST_WIDE) {
                multiply_groups<Packed>(w, x, first, first + count, tokens, out);
            } else {
                alignas(32) uint8_t wide[GROUPS_AT_ONCE * Wide::BYTES];
                Wide::fill(wide, w, count);
                multiply_groups<Wide>(wide, x, first, first + count, tokens, out);
            }
        }
}

// y [tokens, weight.rows] = or += weight x.  To be called by all threads of a parallel region.
template <bool adds>
void multiply(const Weight& weight, const Levels& x, long tokens, float* y) {
#pragma omp for schedule(static)
    for (long block = 0; block < weight.rows / ROWS; block++) {
        alignas(32) float out[TOKENS_AT_ONCE * ROWS];
        multiply_block(weight, block, x, tokens, out);
        for (long i = 0; i < tokens * ROWS; i += 8) {
            float* at = y + i / ROWS * weight.rows + block * ROWS + i % ROWS;
            Vector value = _mm256_loadu_ps(out + i);
            _mm256_storeu_ps(at, adds ? _mm256_add_ps(value, _mm256_loadu_ps(at)) : value);
        }
    }
}

// Norm over a head, if there is one, and rotary positions; the first half of `sin` is negative.
void turn(float* x, long dim, const float* cos, const float* sin, const float* weight, float epsilon) {
    if (weight) {
        float factor = inverse_root(x, dim, epsilon);
        for (long i = 0; i < dim; i++) x[i] *= factor * weight[i];
    }
    for (long i = 0; i < dim / 2; i++) {
        float first = x[i], second = x[i + dim / 2];
        x[i] = first * cos[i] + second * sin[i];
        x[i + dim / 2] = second * cos[i + dim / 2] + first * sin[i + dim / 2];
    }
}

// The sums of four vectors.
__m128 sums_of(const Vector v[4]) {
    Vector pairs = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}

// The scores of H queries, behind each other, with `count` keys; then -inf.  Meanwhile values are fetched.
template <int H>
void score_part(const float* queries, const float* keys, const float* values, long count, long dim,
                float scaling, float scores[H][KEYS_AT_ONCE]) {
    for (long i = 0; i < H * KEYS_AT_ONCE; i++) scores[0][i] = -INFINITY;
    for (long k = 0; k < count; k += 4) {
        fetch(values + k * dim, 4 * dim);
        const float* rows[4];
        for (long r = 0; r < 4; r++) rows[r] = keys + (k + r < count ? k + r : count - 1) * dim;
        Vector dots[H][4];
        for (int h = 0; h < H; h++)
            for (int r = 0; r < 4; r++) dots[h][r] = _mm256_setzero_ps();
        for (long i = 0; i < dim; i += 8)
            for (int h = 0; h < H; h++) {
                Vector query = _mm256_loadu_ps(queries + h * dim + i);
                for (int r = 0; r < 4; r++)
                    dots[h][r] = _mm256_fmadd_ps(query, _mm256_loadu_ps(rows[r] + i), dots[h][r]);
            }
        for (int h = 0; h < H; h++)
            _mm_store_ps(scores[h] + k, _mm_mul_ps(sums_of(dots[h]), _mm_set1_ps(scaling)));
    }
    for (int h = 0; h < H; h++)
        for (long k = count; k % 4; k++) scores[h][k] = -INFINITY;
}

// Scores to weights, 2^(score - highest); out are the highest and the sum of the weights.
void weigh_part(float* scores, float* out) {
    Vector most = _mm256_set1_ps(-INFINITY), total = _mm256_setzero_ps();
    for (long k = 0; k < KEYS_AT_ONCE; k += 8) most = _mm256_max_ps(most, _mm256_load_ps(scores + k));
    out[0] = highest(most);
    for (long k = 0; k < KEYS_AT_ONCE; k += 8) {
        Vector weight = power_of_2(_mm256_sub_ps(_mm256_load_ps(scores + k), _mm256_set1_ps(out[0])));
        _mm256_store_ps(scores + k, weight);
        total = _mm256_add_ps(total, weight);
    }
    out[1] = sum(total);
}

// To out + h * step go 16 columns of the sum of `count` values, each times its weight for query h.
template <int H>
void sum_part(const float weights[H][KEYS_AT_ONCE], const float* values, long count, long dim, float* out,
              long step) {
    Vector sums[H][2];
    for (int h = 0; h < H; h++) sums[h][0] = sums[h][1] = _mm256_setzero_ps();
    for (long k = 0; k < count; k++) {
        Vector low = _mm256_loadu_ps(values + k * dim), high = _mm256_loadu_ps(values + k * dim + 8);
        for (int h = 0; h < H; h++) {
            Vector weight = _mm256_set1_ps(weights[h][k]);
            sums[h][0] = _mm256_fmadd_ps(weight, low, sums[h][0]);
            sums[h][1] = _mm256_fmadd_ps(weight, high, sums[h][1]);
        }
    }
    for (int h = 0; h < H; h++)
        for (int i = 0; i < 2; i++) _mm256_storeu_ps(out + h * step + 8 * i, sums[h][i]);
}

// H queries over at most KEYS_AT_ONCE keys and values.  To out + h * step go the highest score, the sum of
// all 2^(score - highest), and of the values each times that [dim].
template <int H>
void attend_part(const float* queries, const float* keys, const float* values, long count, long dim,
                 float scaling, float* out, long step) {
    alignas(32) float scores[H][KEYS_AT_ONCE];
    score_part<H>(queries, keys, values, count, dim, scaling, scores);
    for (int h = 0; h < H; h++) weigh_part(scores[h], out + h * step);
    for (long i = 0; i < dim; i += 16) sum_part<H>(scores, values + i, count, dim, out + 2 + i, step);
}

// The same for as many of `heads` queries as are computed together, which is returned.
long attend_heads(long heads, const float* queries, const float* keys, const float* values, long count,
                  long dim, float scaling, float* out, long step) {
    long some = heads < HEADS_AT_ONCE ? heads : HEADS_AT_ONCE;
    auto attend = some == 1 ? attend_part<1> : some == 2 ? attend_part<2> : attend_part<HEADS_AT_ONCE>;
    attend(queries, keys, values, count, dim, scaling, out, step);
    return some;
}

// The parts that `attend_part` made of one query, [count, step], as one.
void join_parts(const float* parts, long count, long step, long dim, float* out) {
    float top = -INFINITY, total = 0;
    for (long p = 0; p < count; p++) top = parts[p * step] > top ? parts[p * step] : top;
    std::memset(out, 0, dim * sizeof(float));
    for (long p = 0; p < count; p++) {
        const float* part = parts + p * step;
        float less = std::exp2(part[0] - top);
        total += less * part[1];
        for (long i = 0; i < dim; i++) out[i] += less * part[2 + i];
    }
    for (long i = 0; i < dim; i++) out[i] /= total;
}

// Tokens of one sequence, behind each other in a pass: `count` of them from `first` on.  In the pool the
// sequence begins at `start` and has `before` positions already.
struct Segment {
    long first, count, start, before;
};

// One token, which sees `seen` keys from `start` in the pool on; the first of the parts that it attends in.
struct Single {
    long token, start, seen, first_part;

    long num_parts() const { return (seen + KEYS_AT_ONCE - 1) / KEYS_AT_ONCE; }
};

// -- texts -------------------------------------------------------------------------------------------------
//
// 32 queries that share keys lie side by side, one in each place of four vectors.  Queries, keys, values and
// weights are rounded to whole numbers of 16 bits, and their products added two by two in 32 bits: on a CPU
// with AVX2 that takes two thirds of the time of floats.

constexpr double MOST_SUM = 2147483647;
constexpr float LEAST = 1e-30f;  // rounds to 0
constexpr float LOWEST = -1e30f;  // the score of what is not seen
constexpr int WEIGHT_BITS = 13;  // of a weight of 1, in levels
constexpr long VALUE_LEVELS = long(MOST_SUM) / (KEYS_AT_ONCE << WEIGHT_BITS);

// The most levels that queries and keys may have, so that the products of a whole head fit 32 bits.
float key_levels(long dim) { return std::floor(std::sqrt(MOST_SUM / dim)); }

Vector without_sign(Vector v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }

__m256i rounded(const float* x, Vector inverse) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse));
}

// Numbers of 16 bits in pairs, the second in the upper half.
__m256i paired(__m256i first, __m256i second) {
    return _mm256_blend_epi16(first, _mm256_slli_epi32(second, 16), 0xaa);
}

void put(void* at, __m256i x) { _mm256_storeu_si256(static_cast<__m256i*>(at), x); }

// Floats to at most so many levels.  What one level stands for: not a number if one of the floats is none.
float round_to(const float* x, long size, float most, int16_t* levels) {
    Vector top = _mm256_set1_ps(LEAST), all = _mm256_setzero_ps();
    for (long i = 0; i < size; i += 8) {
        top = _mm256_max_ps(without_sign(_mm256_loadu_ps(x + i)), top);
        all = _mm256_add_ps(all, _mm256_loadu_ps(x + i));
    }
    const float scale = highest(top) / most;
    const Vector inverse = _mm256_set1_ps(1 / scale);
    for (long i = 0; i < size; i += 16) {
        __m256i both = _mm256_packs_epi32(rounded(x + i, inverse), rounded(x + i + 8, inverse));
        put(levels + i, _mm256_permute4x64_epi64(both, 0xd8));
    }
    return scale + 0 * sum(all);
}

// Up to 64 keys and values of one group of heads, an even number of them.  Keys are [count, dim], each with a
// scale; values lie in pairs of tokens, [count / 2, dim, 2], and each column has a scale.
struct Block {
    alignas(32) int16_t keys[KEYS_AT_ONCE * MOST_DIM], values[KEYS_AT_ONCE * MOST_DIM];
    alignas(32) float value_scales[MOST_DIM];
    float key_scales[KEYS_AT_ONCE];
    float doubt;  // not a number if a key has one that is none, else 0
    long start, count;

    void round(const float* new_keys, const float* new_values, long first, long size, long dim) {
        start = first, count = size + size % 2, doubt = 0;
        const float levels = key_levels(dim);
        for (long k = 0; k < size; k++) {
            key_scales[k] = round_to(new_keys + k * dim, dim, levels, keys + k * dim);
            doubt += 0 * key_scales[k];
        }
        if (size < count) {
            key_scales[size] = 0;
            std::memset(keys + size * dim, 0, dim * sizeof(int16_t));
        }
        round_values(new_values, size, dim);
    }

    void round_values(const float* from, long size, long dim) {
        alignas(32) float tops[MOST_DIM], sums[MOST_DIM];
        for (long i = 0; i < dim; i++) tops[i] = LEAST, sums[i] = 0;
        for (long k = 0; k < size; k++)
            for (long i = 0; i < dim; i += 8) {
                Vector value = _mm256_loadu_ps(from + k * dim + i), top = _mm256_load_ps(tops + i);
                _mm256_store_ps(tops + i, _mm256_max_ps(without_sign(value), top));
                _mm256_store_ps(sums + i, _mm256_add_ps(value, _mm256_load_ps(sums + i)));
            }
        for (long i = 0; i < dim; i++) {
            value_scales[i] = tops[i] / VALUE_LEVELS + 0 * sums[i];
            tops[i] = VALUE_LEVELS / tops[i];
        }
        for (long k = 0; k < size; k += 2)
            for (long i = 0; i < dim; i += 8) {
                const float* value = from + k * dim + i;
                Vector inverse = _mm256_load_ps(tops + i);
                __m256i next = k + 1 < size ? rounded(value + dim, inverse) : _mm256_setzero_si256();
                put(values + k * dim + 2 * i, paired(rounded(value, inverse), next));
            }
    }
};

// For two rows of `size` pairs of numbers their products with columns [size, 32] of pairs, added up, to
// take(row, vector, sums).  Row r has its pairs at r * row, each `step` behind the other.
template <class Take>
void multiply_pairs(const int16_t* pairs, long row, long step, const int16_t* columns, long size, Take take) {
    __m256i sums[2][VECTORS];
    for (int r = 0; r < 2; r++)
        for (int v = 0; v < VECTORS; v++) sums[r][v] = _mm256_setzero_si256();
    for (long i = 0; i < size; i++, pairs += 2 * step, columns += 2 * QUERIES)
        for (int r = 0; r < 2; r++) {
            int32_t pair;
            std::memcpy(&pair, pairs + 2 * r * row, 4);
            for (int v = 0; v < VECTORS; v++) {
                __m256i column = _mm256_load_si256(reinterpret_cast<const __m256i*>(columns) + v);
                __m256i product = _mm256_madd_epi16(_mm256_set1_epi32(pair), column);
                sums[r][v] = _mm256_add_epi32(sums[r][v], product);
            }
        }
    for (int r = 0; r < 2; r++)
        for (int v = 0; v < VECTORS; v++) take(r, v, _mm256_cvtepi32_ps(sums[r][v]));
}

// The levels of 2^(x - WEIGHT_BITS) for x <= WEIGHT_BITS, right to a part in 10 000; 0 for what is not a
// number, so that a query that is none gets 0 / 0 in the end.
__m256i weight_levels(Vector x) {
    const Vector whole = _mm256_set1_ps(3 << 22);  // added to it a float is rounded to a whole number
    x = _mm256_max_ps(x, _mm256_set1_ps(-2));
    Vector n = _mm256_add_ps(x, whole), r = _mm256_sub_ps(x, _mm256_sub_ps(n, whole));
    Vector p = _mm256_set1_ps(5.517166e-2f);
    for (float term : {0.24261114f, 0.69326099f, 0.99992807f}) p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(term));
    __m256i power = _mm256_slli_epi32(_mm256_castps_si256(n), 23);
    return _mm256_cvtps_epi32(_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power)));
}

// Eight rows of eight numbers of 32 bits, each row `step` behind the other, to columns.
void turn_over(const void* from, long step, Vector columns[8]) {
    Vector rows[8], pairs[8];
    for (int r = 0; r < 8; r++) rows[r] = _mm256_loadu_ps(static_cast<const float*>(from) + r * step);
    for (int r = 0; r < 8; r += 2) {
        pairs[r] = _mm256_unpacklo_ps(rows[r], rows[r + 1]);
        pairs[r + 1] = _mm256_unpackhi_ps(rows[r], rows[r + 1]);
    }
    for (int r = 0; r < 8; r++) {  // fours: of rows 0 to 3 or 4 to 7, columns r % 4 and r % 4 + 4
        Vector first = pairs[r / 4 * 4 + r % 4 / 2], second = pairs[r / 4 * 4 + r % 4 / 2 + 2];
        rows[r] = r % 2 ? _mm256_shuffle_ps(first, second, 0xee) : _mm256_shuffle_ps(first, second, 0x44);
    }
    for (int r = 0; r < 4; r++) {
        columns[r] = _mm256_permute2f128_ps(rows[r], rows[r + 4], 0x20);
        columns[r + 4] = _mm256_permute2f128_ps(rows[r], rows[r + 4], 0x31);
    }
}

// 32 queries of one group of heads, and what they have seen.
struct Queries {
    alignas(32) int16_t columns[MOST_DIM * QUERIES];  // [dim / 2, 32, 2]
    alignas(32) float sums[MOST_DIM * QUERIES], top[QUERIES], total[QUERIES];
    alignas(32) float scales[QUERIES];  // those of scores among them: as weights are powers of 2
    alignas(32) float last[QUERIES];  // the last key that each sees

    void begin(const float* const queries[QUERIES], float scaling, long dim) {
        alignas(32) int16_t levels[QUERIES * MOST_DIM];
        for (long q = 0; q < QUERIES; q++) {
            scales[q] = scaling * round_to(queries[q], dim, key_levels(dim), levels + q * dim);
            top[q] = LOWEST, total[q] = 0;
        }
        for (long q = 0; q < QUERIES; q += 8)
            for (long i = 0; i < dim; i += 16) {
                Vector pairs[8];
                turn_over(levels + q * dim + i, dim / 2, pairs);
                for (long r = 0; r < 8; r++)
                    put(&columns[(i + 2 * r) * QUERIES + 2 * q], _mm256_castps_si256(pairs[r]));
            }
        std::memset(sums, 0, dim * QUERIES * sizeof(float));
    }

    void end(float* const results[QUERIES], long dim) const {
        for (long q = 0; q < QUERIES; q += 8)
            for (long i = 0; i < dim; i += 8) {
                Vector rows[8];
                turn_over(sums + i * QUERIES + q, QUERIES, rows);
                for (long r = 0; r < 8; r++)
                    _mm256_storeu_ps(results[q + r] + i, _mm256_div_ps(rows[r], _mm256_set1_ps(total[q + r])));
            }
    }

    void see(const Block& block, long dim) {
        alignas(32) float scores[KEYS_AT_ONCE * QUERIES], factors[QUERIES];
        alignas(32) int16_t weights[KEYS_AT_ONCE * QUERIES];  // [count / 2, 32, 2]
        for (long k = 0; k < block.count; k += 2)
            multiply_pairs(block.keys + k * dim, dim / 2, 1, columns, dim / 2, [&](int r, int v, Vector x) {
                Vector scale = _mm256_set1_ps(block.key_scales[k + r]);
                _mm256_store_ps(scores + (k + r) * QUERIES + 8 * v, _mm256_mul_ps(x, scale));
            });
        if (block.start + block.count - 1 > last[0]) hide(block, scores);
        for (long q = 0; q < QUERIES; q += 8) weigh(block, q, dim, scores, weights, factors);
        for (long i = 0; i < dim; i += 2)
            multiply_pairs(block.values + 2 * i, 1, dim, weights, block.count / 2, [&](int r, int v, Vector x) {
                Vector factor = _mm256_load_ps(factors + 8 * v);
                factor = _mm256_mul_ps(factor, _mm256_set1_ps(block.value_scales[i + r]));
                float* at = sums + (i + r) * QUERIES + 8 * v;
                _mm256_store_ps(at, _mm256_fmadd_ps(x, factor, _mm256_load_ps(at)));
            });
    }

    // -inf for the scores of keys that a query does not see.
    void hide(const Block& block, float* scores) {
        for (long k = 0; k < block.count; k++)
            for (long q = 0; q < QUERIES; q += 8) {
                float* at = scores + k * QUERIES + q;
                Vector key = _mm256_set1_ps(block.start + k), unseen = _mm256_set1_ps(-INFINITY);
                Vector hidden = _mm256_cmp_ps(key, _mm256_load_ps(last + q), _CMP_GT_OQ);
                _mm256_store_ps(at, _mm256_blendv_ps(_mm256_load_ps(at), unseen, hidden));
            }
    }

    // Scores of 8 queries to weights: levels of 2^(score - highest of the block), so that none of a block is
    // lost where another has a far higher score.  `factors` make them weights among those of other blocks;
    // what was seen of these counts less if a higher score was found.
    void weigh(const Block& block, long q, long dim, const float* scores, int16_t* weights,
               float* factors) {
        const Vector scale = _mm256_load_ps(scales + q);
        Vector most = _mm256_set1_ps(LOWEST);
        for (long k = 0; k < block.count; k++)
            most = _mm256_max_ps(most, _mm256_load_ps(scores + k * QUERIES + q));
        most = _mm256_max_ps(_mm256_mul_ps(most, scale), _mm256_set1_ps(LOWEST));
        const Vector less = _mm256_sub_ps(most, _mm256_set1_ps(WEIGHT_BITS));
        __m256i all = _mm256_setzero_si256();
        auto weight = [&](long k) {
            return weight_levels(_mm256_fmsub_ps(_mm256_load_ps(scores + k * QUERIES + q), scale, less));
        };
        for (long k = 0; k < block.count; k += 2) {
            __m256i both = paired(weight(k), weight(k + 1));
            all = _mm256_add_epi32(all, _mm256_madd_epi16(both, _mm256_set1_epi16(1)));
            put(weights + k * QUERIES + 2 * q, both);
        }
        const Vector before = _mm256_load_ps(top + q), now = _mm256_max_ps(before, most);
        const Vector kept = power_of_2(_mm256_sub_ps(before, now));
        const Vector factor = _mm256_add_ps(power_of_2(_mm256_sub_ps(most, now)), _mm256_set1_ps(block.doubt));
        Vector sum = _mm256_mul_ps(_mm256_cvtepi32_ps(all), factor);
        _mm256_store_ps(factors + q, factor);
        _mm256_store_ps(top + q, now);
        _mm256_store_ps(total + q, _mm256_fmadd_ps(_mm256_load_ps(total + q), kept, sum));
        if (!_mm256_movemask_ps(_mm256_cmp_ps(before, now, _CMP_LT_OQ))) return;
        for (long i = 0; i < dim; i++) {
            float* at = sums + i * QUERIES + q;
            _mm256_store_ps(at, _mm256_mul_ps(_mm256_load_ps(at), kept));
        }
    }
};

// The tokens and heads of a segment that share group `group` are rows, [tokens, heads of the group], behind each
// other.  Those from `row` to `end` are attended together: each block of keys and values is rounded once.
void attend_rows(const Layer* layer, const float* states, const Segment& segment, long group, long row, long end,
                 const float* keys, const float* values, float* out) {
    const long dim = layer->dim, heads = layer->heads, shared = heads / layer->groups;
    const long tiles = (end - row + QUERIES - 1) / QUERIES, seen = segment.before + (end - 1) / shared + 1;
    std::unique_ptr<Queries[]> queries(new Queries[tiles]);
    std::vector<const float*> from(tiles * QUERIES);
    std::vector<float*> to(tiles * QUERIES);
    for (long i = 0; i < tiles * QUERIES; i++) {
        const long at = row + i < end ? row + i : end - 1;  // the last tile is filled with the last row
        const long token = segment.first + at / shared, head = group * shared + at % shared;
        from[i] = states + token * layer->input.rows + head * dim;
        to[i] = out + (token * heads + head) * dim;
        queries[i / QUERIES].last[i % QUERIES] = segment.before + at / shared;
    }
    for (long i = 0; i < tiles; i++)
        queries[i].begin(&from[i * QUERIES], layer->scaling * LOG2_E, dim);
    Block block;
    for (long start = 0; start < seen; start += KEYS_AT_ONCE) {
        long count = seen - start < KEYS_AT_ONCE ? seen - start : KEYS_AT_ONCE;
        block.round(keys + start * dim, values + start * dim, start, count, dim);
        for (long i = 0; i < tiles; i++)
            if (start <= queries[i].last[QUERIES - 1]) queries[i].see(block, dim);
    }
    for (long i = 0; i < tiles; i++) queries[i].end(&to[i * QUERIES], dim);
}

// Of how many rows the pieces are in which `rows` of each group are attended: whole tiles, not too many that a
// thread keeps what they have seen near, and as many pieces for each thread.
long piece_of(long rows, long groups) {
    const long tiles = (rows + QUERIES - 1) / QUERIES, threads = omp_get_num_threads();
    const long round = threads / std::gcd(threads, groups);
    const long pieces = (tiles + TILES_AT_ONCE * round - 1) / (TILES_AT_ONCE * round) * round;
    return (tiles + pieces - 1) / pieces * QUERIES;
}

// x / (1 + e^-x)
Vector silu(Vector x) {
    Vector e = power_of_2(_mm256_min_ps(_mm256_set1_ps(127), _mm256_mul_ps(x, _mm256_set1_ps(-LOG2_E))));
    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1), e));
}

// silu(gate) * up, rounded, of `weight`, which is gate above up.  To be called by all threads of a parallel
// region.
void multiply_gated(const Weight& weight, const Levels& x, long tokens, const Levels& to) {
#pragma omp for schedule(static)
    for (long g = 0; g < to.groups(); g++) {
        alignas(32) float gate[2][TOKENS_AT_ONCE * ROWS], up[2][TOKENS_AT_ONCE * ROWS];
        for (long b = 0; b < 2; b++) {
            multiply_block(weight, 2 * g + b, x, tokens, gate[b]);
            multiply_block(weight, 2 * g + b + weight.rows / ROWS / 2, x, tokens, up[b]);
        }
        for (long token = 0; token < tokens; token++) {
            Vector v[4];
            for (int i = 0; i < 4; i++) {
                long at = token * ROWS + i % 2 * 8;
                Vector gated = silu(_mm256_load_ps(gate[i / 2] + at));
                v[i] = _mm256_mul_ps(gated, _mm256_load_ps(up[i / 2] + at));
            }
            round_group(v, to, token, g);
        }
    }
}

// compute(start, count, shared) for all tokens in blocks.  Where there are enough each thread has blocks of
// its own, and none waits for another; else the threads of a parallel region share a block.
template <class Compute>
void in_blocks(long tokens, Compute compute) {
    const long share = tokens / (2 * omp_get_max_threads()) / MOST_TOKENS * MOST_TOKENS;
    const bool shared = share < LEAST_SHARE;
    const long size = shared || share > TOKENS_AT_ONCE ? TOKENS_AT_ONCE : share;
    auto block = [&](long start) {
        compute(start, tokens - start < size ? tokens - start : size, shared);
    };
    if (shared) {  // not within a region: in a nested one libgomp makes new threads each time
        for (long start = 0; start < tokens; start += size) block(start);
        return;
    }
#pragma omp parallel for schedule(dynamic)
    for (long start = 0; start < tokens; start += size) block(start);
}

}  // namespace

extern "C" {

// Lay out levels [rows, planes * columns] of 0..15 with scales and zeros (bfloat16) [rows, groups].
void pack(const uint8_t* levels, const uint16_t* scales, const uint16_t* zeros, long rows, long groups,
          uint8_t* to) {
#pragma omp parallel for schedule(static)
    for (long block = 0; block < rows / ROWS; block++)
        for (long g = 0; g < groups; g++) {
            uint8_t* out = to + (block * groups + g) * GROUP_BYTES;
            for (long r = 0; r < ROWS; r++) {
                long row = block * ROWS + r;
                const uint8_t* from = levels + (row * groups + g) * GROUP;
                for (long i = 0; i < 4; i++)
                    for (long k = 0; k < 4; k++)
                        out[i * 64 + r / 8 * 32 + r % 8 * 4 + k] =
                            uint8_t(from[8 * i + k] | from[8 * i + 4 + k] << 4);
                std::memcpy(out + 256 + 2 * r, scales + row * groups + g, 2);
                std::memcpy(out + 288 + 2 * r, zeros + row * groups + g, 2);
            }
        }
}

// Queries, keys and values of `tokens`, heads normed and turned: states [tokens, (heads + 2 groups) dim].
void before(const Layer* layer, const float* hidden, long tokens, const float* cos, const float* sin,
            float* states) {
    const Weight& input = layer->input;
    const long dim = layer->dim, turned = layer->heads + layer->groups;
    in_blocks(tokens, [&](long start, long count, bool shared) {
        const float* rows = hidden + start * input.columns;
        float* out = states + start * input.rows;
        Levels x(count, input.columns);
#pragma omp parallel if (shared)
        {
#pragma omp for schedule(static)
            for (long t = 0; t < count; t++)
                norm_row(rows + t * input.columns, x, t, layer->before_attention, layer->epsilon);
            multiply<false>(input, x, count, out);
#pragma omp for schedule(static)
            for (long i = 0; i < count * turned; i++) {
                long t = i / turned, head = i % turned, at = (start + t) * dim;
                const float* weight = head < layer->heads ? layer->query_norm : layer->key_norm;
                turn(out + t * input.rows + head * dim, dim, cos + at, sin + at, weight,
                     layer->head_epsilon);
            }
        }
    });
}

// Put keys and values of the tokens of segments into a pool [groups, total, dim], and attend.
void attend(const Layer* layer, const float* states, float* keys, float* values, long total,
            const Segment* segments, long num_segments, float* out) {
    const long dim = layer->dim, heads = layer->heads, groups = layer->groups, shared = heads / groups;
    const long width = layer->input.rows;
    std::vector<Single> singles;
    long num_parts = 0;
    for (const Segment* s = segments; s < segments + num_segments; s++)
        for (long t = 0; t < s->count && s->count * shared < LEAST_ROWS; t++) {
            singles.push_back({s->first + t, s->start, s->before + t + 1, num_parts});
            num_parts += singles.back().num_parts();
        }
    for (const Segment* s = segments; s < segments + num_segments; s++)
        for (long g = 0; g < groups; g++)
            for (long t = 0; t < s->count; t++) {
                long at = (g * total + s->start + s->before + t) * dim;
                const float* key = states + (s->first + t) * width + (heads + g) * dim;
                std::memcpy(keys + at, key, dim * sizeof(float));
                std::memcpy(values + at, key + groups * dim, dim * sizeof(float));
            }
    const long step = 2 + dim;
    std::unique_ptr<float[]> parts(new float[num_parts * heads * step]);
#pragma omp parallel
    {
        for (const Segment* s = segments; s < segments + num_segments; s++) {
            const long rows = s->count * shared, piece = piece_of(rows, groups);
            const long pieces = (rows + piece - 1) / piece;
            if (rows < LEAST_ROWS) continue;
#pragma omp for schedule(dynamic) nowait
            for (long i = 0; i < pieces * groups; i++) {
                long group = i % groups, row = (pieces - 1 - i / groups) * piece;  // the longest first
                long at = (group * total + s->start) * dim, end = row + piece < rows ? row + piece : rows;
                attend_rows(layer, states, *s, group, row, end, keys + at, values + at, out);
            }
        }
        for (const Single& s : singles) {
#pragma omp for schedule(dynamic) nowait
            for (long i = 0; i < s.num_parts() * groups; i++) {
                long group = i / s.num_parts(), part = i % s.num_parts(), start = part * KEYS_AT_ONCE;
                long at = (group * total + s.start + start) * dim;
                long count = s.seen - start < KEYS_AT_ONCE ? s.seen - start : KEYS_AT_ONCE;
                for (long head = group * shared, end = head + shared; head < end;)
                    head += attend_heads(end - head, states + s.token * width + head * dim, keys + at,
                                         values + at, count, dim, layer->scaling * LOG2_E,
                                         &parts[(head * num_parts + s.first_part + part) * step],
                                         num_parts * step);
            }
        }
        if (!singles.empty()) {
#pragma omp barrier
#pragma omp for schedule(static)
            for (long j = 0; j < long(singles.size()) * heads; j++) {
                long i = j / heads, head = j % heads;
                join_parts(&parts[(head * num_parts + singles[i].first_part) * step], singles[i].num_parts(),
                           step, dim, out + (singles[i].token * heads + head) * dim);
            }
        }
    }
}

// What comes after attention: its output and the MLP are added to `hidden`.
void after(const Layer* layer, float* hidden, const float* attended, long tokens) {
    const long size = layer->output.rows, wide = layer->output.columns;
    in_blocks(tokens, [&](long start, long count, bool shared) {
        float* rows = hidden + start * size;
        Levels x(count, wide), y(count, size), z(count, layer->down.columns);
#pragma omp parallel if (shared)
        {
#pragma omp for schedule(static)
            for (long t = 0; t < count; t++)
                round_row(attended + (start + t) * wide, x, t, 1, nullptr);
            multiply<true>(layer->output, x, count, rows);
#pragma omp for schedule(static)
            for (long t = 0; t < count; t++)
                norm_row(rows + t * size, y, t, layer->before_mlp, layer->epsilon);
            multiply_gated(layer->gate, y, count, z);
            multiply<true>(layer->down, z, count, rows);
        }
    });
}

// Logits [tokens, rows] of `hidden` [tokens, columns], normed.
void logits(const Weight* head, const float* norm, float epsilon, const float* hidden, long tokens,
            float* out) {
    in_blocks(tokens, [&](long start, long count, bool shared) {
        Levels x(count, head->columns);
#pragma omp parallel if (shared)
        {
#pragma omp for schedule(static)
            for (long t = 0; t < count; t++)
                norm_row(hidden + (start + t) * head->columns, x, t, norm, epsilon);
            multiply<false>(*head, x, count, out + start * head->rows);
        }
    });
}
}
