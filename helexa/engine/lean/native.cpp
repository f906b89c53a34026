// The layers of a packed model of the usual shape, for CPUs with AVX2.
//
// Weights have 4 bits, groups of 32 of a row share a scale and a zero; activations are rounded to 8 bits,
// groups of 32 with a scale, and multiplied as whole numbers.  All else is float32.  `pack` lays weights
// out: 16 rows together, in each of their groups 8 bytes of every row as two vectors of 8 rows.

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr long GROUP = 32, ROWS = 16, MOST_TOKENS = 4, TOKENS_AT_ONCE = 128, KEYS_AT_ONCE = 64;
constexpr long GROUP_BYTES = 2 * (GROUP / 2 * 8 + 8 * 4);  // of 16 rows: levels, scales, zeros

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
    int8_t* levels;
    float *scales, *sums;
    long columns;

    long groups() const { return columns / GROUP; }
};

long levels_bytes(long columns) {
    return TOKENS_AT_ONCE * (columns + columns / GROUP * 2 * long(sizeof(float)));
}

Levels levels_in(uint8_t* scratch, long columns) {
    auto scales = reinterpret_cast<float*>(scratch + TOKENS_AT_ONCE * columns);
    return {reinterpret_cast<int8_t*>(scratch), scales,
            scales + TOKENS_AT_ONCE * (columns / GROUP), columns};
}

float sum(Vector v) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

// e^x for x <= 88: 2^n times a polynomial on half an octave around 0, right to about 2 units in the last place.
Vector exponential(Vector x) {
    x = _mm256_max_ps(_mm256_min_ps(x, _mm256_set1_ps(88.0f)), _mm256_set1_ps(-87.0f));
    Vector n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), 8);
    Vector r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    const float terms[] = {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1, 1};
    Vector p = _mm256_set1_ps(1.0f / 720);
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
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to.levels + at * GROUP), bytes);
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

// 16 rows of a weight times T tokens, into out[T][16].
template <int T>
void multiply_tile(const uint8_t* w, long planes, const Levels& x, long token, float* out) {
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    const long groups = x.groups();
    Vector acc[T][2];
    for (int t = 0; t < T; t++) acc[t][0] = acc[t][1] = _mm256_setzero_ps();
    for (long plane = 0; plane < planes; plane++)
        for (long g = 0; g < groups; g++, w += GROUP_BYTES) {
            __m256i dot[T][2];
            for (int t = 0; t < T; t++) dot[t][0] = dot[t][1] = _mm256_setzero_si256();
            for (int i = 0; i < 4; i++) {
                auto both = reinterpret_cast<const __m256i*>(w) + 2 * i;
                __m256i a = _mm256_loadu_si256(both), b = _mm256_loadu_si256(both + 1);
                __m256i a0 = _mm256_and_si256(a, low), b0 = _mm256_and_si256(b, low);
                __m256i a1 = _mm256_and_si256(_mm256_srli_epi16(a, 4), low);
                __m256i b1 = _mm256_and_si256(_mm256_srli_epi16(b, 4), low);
                for (int t = 0; t < T; t++) {
                    const int8_t* q = x.levels + ((token + t) * groups + g) * GROUP + 8 * i;
                    int32_t first, second;
                    std::memcpy(&first, q, 4);
                    std::memcpy(&second, q + 4, 4);
                    __m256i x0 = _mm256_set1_epi32(first), x1 = _mm256_set1_epi32(second);
                    dot[t][0] = _mm256_add_epi16(dot[t][0], _mm256_maddubs_epi16(a0, x0));
                    dot[t][1] = _mm256_add_epi16(dot[t][1], _mm256_maddubs_epi16(b0, x0));
                    dot[t][0] = _mm256_add_epi16(dot[t][0], _mm256_maddubs_epi16(a1, x1));
                    dot[t][1] = _mm256_add_epi16(dot[t][1], _mm256_maddubs_epi16(b1, x1));
                }
            }
            for (int h = 0; h < 2; h++) {
                Vector scale = widened(w + 256 + 16 * h), zero = widened(w + 288 + 16 * h);
                zero = _mm256_fnmadd_ps(_mm256_set1_ps(8), scale, zero);
                for (int t = 0; t < T; t++) {
                    long at = (token + t) * groups + g;
                    Vector d = _mm256_cvtepi32_ps(_mm256_madd_epi16(dot[t][h], ones));
                    Vector s = _mm256_mul_ps(scale, _mm256_set1_ps(x.scales[at]));
                    acc[t][h] = _mm256_fmadd_ps(d, s, acc[t][h]);
                    acc[t][h] = _mm256_fmadd_ps(zero, _mm256_set1_ps(x.sums[at]), acc[t][h]);
                }
            }
        }
    for (int t = 0; t < T; t++)
        for (int h = 0; h < 2; h++) _mm256_storeu_ps(out + t * ROWS + h * 8, acc[t][h]);
}

// y [tokens, stride] = or += weight x.  To be called by all threads of a parallel region.
template <bool adds>
void multiply(const Weight& weight, const Levels& x, long tokens, float* y, long stride) {
    const long bytes = x.groups() * weight.planes * GROUP_BYTES;
#pragma omp for schedule(static)
    for (long block = 0; block < weight.rows / ROWS; block++) {
        const uint8_t* w = weight.data + block * bytes;
        for (long token = 0; token < tokens; token += MOST_TOKENS) {
            float out[MOST_TOKENS * ROWS];
            long count = tokens - token < MOST_TOKENS ? tokens - token : MOST_TOKENS;
            switch (count) {
                case 1: multiply_tile<1>(w, weight.planes, x, token, out); break;
                case 2: multiply_tile<2>(w, weight.planes, x, token, out); break;
                case 3: multiply_tile<3>(w, weight.planes, x, token, out); break;
                default: multiply_tile<4>(w, weight.planes, x, token, out);
            }
            for (long t = 0; t < count; t++)
                for (long r = 0; r < ROWS; r++) {
                    float value = out[t * ROWS + r];
                    if (weight.bias) value += weight.bias[block * ROWS + r];
                    float& at = y[(token + t) * stride + block * ROWS + r];
                    at = adds ? at + value : value;
                }
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

// One head of one token over `seen` keys and values [seen, dim].
void attend_head(const float* query, const float* keys, const float* values, long seen, long dim,
                 float scaling, float* out) {
    float top = -INFINITY, total = 0, scores[KEYS_AT_ONCE];
    std::memset(out, 0, dim * sizeof(float));
    for (long start = 0; start < seen; start += KEYS_AT_ONCE) {
        long count = seen - start < KEYS_AT_ONCE ? seen - start : KEYS_AT_ONCE;
        float most = top;
        for (long k = 0; k < count; k++) {
            const float* key = keys + (start + k) * dim;
            Vector dot = _mm256_setzero_ps();
            for (long i = 0; i < dim; i += 8)
                dot = _mm256_fmadd_ps(_mm256_loadu_ps(query + i), _mm256_loadu_ps(key + i), dot);
            scores[k] = sum(dot) * scaling;
            most = scores[k] > most ? scores[k] : most;
        }
        if (most > top) {
            float less = std::exp(top - most);
            total *= less;
            for (long i = 0; i < dim; i++) out[i] *= less;
            top = most;
        }
        for (long k = count; k < (count + 7) / 8 * 8; k++) scores[k] = -INFINITY;
        for (long k = 0; k < count; k += 8) {
            Vector s = _mm256_sub_ps(_mm256_loadu_ps(scores + k), _mm256_set1_ps(top));
            _mm256_storeu_ps(scores + k, exponential(s));
        }
        for (long k = 0; k < count; k++) {
            const float* value = values + (start + k) * dim;
            total += scores[k];
            Vector s = _mm256_set1_ps(scores[k]);
            for (long i = 0; i < dim; i += 8)
                _mm256_storeu_ps(out + i, _mm256_fmadd_ps(s, _mm256_loadu_ps(value + i),
                                                          _mm256_loadu_ps(out + i)));
        }
    }
    for (long i = 0; i < dim; i++) out[i] /= total;
}

// silu(gate) * up, of rows [gate, up] of 2 * inner.
void gate_group(const float* row, long inner, const Levels& to, long token, long group) {
    Vector v[4];
    for (int i = 0; i < 4; i++) {
        const float* at = row + group * GROUP + i * 8;
        Vector x = _mm256_loadu_ps(at);
        Vector e = exponential(_mm256_sub_ps(_mm256_setzero_ps(), x));
        x = _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1), e));
        v[i] = _mm256_mul_ps(x, _mm256_loadu_ps(at + inner));
    }
    round_group(v, to, token, group);
}

}  // namespace

extern "C" {

long scratch_bytes(const Layer* layer) {
    long inner = layer->down.columns;
    long widest = inner > layer->output.columns ? inner : layer->output.columns;
    widest = widest > layer->input.columns ? widest : layer->input.columns;
    return levels_bytes(widest) + TOKENS_AT_ONCE * 2 * inner * long(sizeof(float));
}

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
            float* states, uint8_t* scratch) {
    const Weight& input = layer->input;
    const long dim = layer->dim, turned = layer->heads + layer->groups;
    const Levels x = levels_in(scratch, input.columns);
#pragma omp parallel
    for (long start = 0; start < tokens; start += TOKENS_AT_ONCE) {
        long count = tokens - start < TOKENS_AT_ONCE ? tokens - start : TOKENS_AT_ONCE;
        const float* rows = hidden + start * input.columns;
        float* out = states + start * input.rows;
#pragma omp for schedule(static)
        for (long t = 0; t < count; t++)
            norm_row(rows + t * input.columns, x, t, layer->before_attention, layer->epsilon);
        multiply<false>(input, x, count, out, input.rows);
#pragma omp for schedule(static)
        for (long i = 0; i < count * turned; i++) {
            long t = i / turned, head = i % turned, at = (start + t) * dim;
            const float* weight = head < layer->heads ? layer->query_norm : layer->key_norm;
            turn(out + t * input.rows + head * dim, dim, cos + at, sin + at, weight,
                 layer->head_epsilon);
        }
    }
}

// Put keys and values into a pool [groups, total, dim] at `places`, and attend over what each token sees:
// `seen` positions from `starts` on.
void attend(const Layer* layer, const float* states, long tokens, float* keys, float* values, long total,
            const long* places, const long* starts, const long* seen, float* out) {
    const long dim = layer->dim, heads = layer->heads, groups = layer->groups;
    const long width = layer->input.rows;
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (long i = 0; i < tokens * groups; i++) {
            long t = i / groups, g = i % groups, at = (g * total + places[t]) * dim;
            const float* key = states + t * width + (heads + g) * dim;
            std::memcpy(keys + at, key, dim * sizeof(float));
            std::memcpy(values + at, key + groups * dim, dim * sizeof(float));
        }
#pragma omp for schedule(dynamic)
        for (long i = 0; i < tokens * heads; i++) {
            long t = i / heads, head = i % heads;
            long at = (head / (heads / groups) * total + starts[t]) * dim;
            attend_head(states + t * width + head * dim, keys + at, values + at, seen[t], dim,
                        layer->scaling, out + (t * heads + head) * dim);
        }
    }
}

// What comes after attention: its output and the MLP are added to `hidden`.
void after(const Layer* layer, float* hidden, const float* attended, long tokens, uint8_t* scratch) {
    const long size = layer->output.rows, inner = layer->down.columns, wide = layer->output.columns;
    const Levels x = levels_in(scratch, wide), y = levels_in(scratch, size), z = levels_in(scratch, inner);
    float* both = reinterpret_cast<float*>(scratch + scratch_bytes(layer)) - TOKENS_AT_ONCE * 2 * inner;
#pragma omp parallel
    for (long start = 0; start < tokens; start += TOKENS_AT_ONCE) {
        long count = tokens - start < TOKENS_AT_ONCE ? tokens - start : TOKENS_AT_ONCE;
        float* rows = hidden + start * size;
#pragma omp for schedule(static)
        for (long t = 0; t < count; t++)
            round_row(attended + (start + t) * wide, x, t, 1, nullptr);
        multiply<true>(layer->output, x, count, rows, size);
#pragma omp for schedule(static)
        for (long t = 0; t < count; t++)
            norm_row(rows + t * size, y, t, layer->before_mlp, layer->epsilon);
        multiply<false>(layer->gate, y, count, both, 2 * inner);
#pragma omp for schedule(static) collapse(2)
        for (long t = 0; t < count; t++)
            for (long g = 0; g < inner / GROUP; g++) gate_group(both + t * 2 * inner, inner, z, t, g);
        multiply<true>(layer->down, z, count, rows, size);
    }
}

// Logits [tokens, rows] of `hidden` [tokens, columns], normed.
void logits(const Weight* head, const float* norm, float epsilon, const float* hidden, long tokens,
            float* out, uint8_t* scratch) {
    const Levels x = levels_in(scratch, head->columns);
#pragma omp parallel
    for (long start = 0; start < tokens; start += TOKENS_AT_ONCE) {
        long count = tokens - start < TOKENS_AT_ONCE ? tokens - start : TOKENS_AT_ONCE;
#pragma omp for schedule(static)
        for (long t = 0; t < count; t++)
            norm_row(hidden + (start + t) * head->columns, x, t, norm, epsilon);
        multiply<false>(*head, x, count, out + start * head->rows, head->rows);
    }
}
}
