/* What the loops share: types and how they are read and written, Philox, and rng.py's functions. Built without
contraction, with the reference's arithmetic; the constants of recipe.py and rng.py are macros of the same names. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __AVX__
#include <immintrin.h>
#endif

#define APART __attribute__((noinline))           /* inlined, these loops took twice as long to compile */

#include "constants.h"                            /* written by native.py */

enum { UINT8, FLOAT32, BFLOAT16, FLOAT16, COPIED }; /* COPIED: two bytes an element, of any type */
enum { BLOCK = 512 };                             /* elements that are worked on at a time */
enum { LINE = 64 };                               /* bytes of a line of the cache */
enum { SHORT = 1 << 10, AHEAD = 1 << 12 };        /* bytes written past the cache at a time, read so far ahead */
static const int SIZES[] = {1, 4, 2, 2, 2};       /* bytes of an element */

#ifdef __FLT16_MANT_DIG__                         /* of newer compilers */
typedef _Float16 Half;
const int fusedmix_knows_halves = 1;
#else
typedef uint16_t Half;
const int fusedmix_knows_halves = 0;
#endif

typedef struct {
    uint32_t word[4];
} Words;

/* The four Philox4x32 words at (index, stream). */
static inline Words words_of(uint64_t seed, uint64_t offset, uint32_t index, uint32_t stream, int rounds)
{
    uint32_t c0 = (uint32_t)offset, c1 = (uint32_t)(offset >> 32), c2 = index, c3 = stream;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int r = 0; r < rounds; r++) {
        uint64_t a = (uint64_t)0xD2511F53 * c0, b = (uint64_t)0xCD9E8D57 * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0, c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1, c3 = (uint32_t)a;
        k0 += 0x9E3779B9, k1 += 0xBB67AE85;
    }
    return (Words){{c0, c1, c2, c3}};
}

static inline Words words_at(uint64_t seed, uint64_t offset, uint32_t index, uint32_t stream)
{
    return words_of(seed, offset, index, stream, ROUNDS);
}

static float horner(const float *coefficients, int count, float x)
{
    float total = coefficients[count - 1];
    for (int k = count - 2; k >= 0; k--)
        total = total * x + coefficients[k];
    return total;
}
#define POLYNOMIAL(table, x) horner(table, sizeof(table) / sizeof(table[0]), x)

static int32_t bits_of(float value)
{
    int32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static float as_float32(int32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static float logarithm(float x)
{
    static const float terms[] = LOG_POLY;
    int32_t bits = bits_of(x) + ONE_BITS - SQRT_HALF_BITS;
    int32_t exponent = (bits >> 23) - 127;
    float m = as_float32((bits & 0x7FFFFF) + SQRT_HALF_BITS), z = (m - 1) / (m + 1);
    return POLYNOMIAL(terms, z * z) * z + (float)exponent * LN2;
}

/* e to the power of -x. */
static float decay(float x)
{
    static const float terms[] = EXP_POLY;
    float n = floorf(x * -LOG2_E + 0.5f);
    return POLYNOMIAL(terms, -x - n * LN2_HI - n * LN2_LO) * as_float32(((int32_t)n + 127) << 23);
}

static float unit(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

static float open_unit(uint32_t word)
{
    return ((float)(word >> 9) + 0.5f) * 0x1p-23f;
}

static int64_t below(uint32_t word, int64_t n)
{
    return (int64_t)word * n >> 32;
}

static float between(uint32_t word, float low, float high)
{
    return low + unit(word) * (high - low);
}

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

static int64_t at_least_1(int64_t n)
{
    return n > 1 ? n : 1;
}

/* Fields of a choice's code, as in recipe.py. */
#define METHOD_OF(code) ((code) & 0xFF)
#define COUNT_OF(code) ((code) >> COUNT_SHIFT & 0xFF)
#define HAS_FLAG(code, flag) (((code) >> FLAG_SHIFT & (flag)) != 0)
#define DROPS(code) (METHOD_OF(code) >= METHOD_CUTOUT && METHOD_OF(code) <= METHOD_HIDE)
#define BOXED(code) (METHOD_OF(code) == METHOD_CUTMIX || METHOD_OF(code) == METHOD_RESIZEMIX || \
                     METHOD_OF(code) == METHOD_CUTOUT || METHOD_OF(code) == METHOD_ERASING)

/* Gaussian weight at a whole distance, an integer of 2**-BELL_BITS. inverse: 1 / (2 sigma**2). */
static inline float bell(int64_t distance, float inverse)
{
    static const float terms[] = BELL_POLY;
    float power = (float)distance * (float)distance * inverse;
    power = power > 0 ? power : 0, power = power < BETA_MAX_LOG ? power : BETA_MAX_LOG;
    power = power * -LOG2_E; /* of 2 */
    float n = rintf(power);
    return rintf(POLYNOMIAL(terms, power - n) * as_float32(((int32_t)n + 127 + BELL_BITS) << 23));
}

/* Whether a cell of a grid is chosen. slots: height and width of a cell, key, share of chosen cells in 2**-24. */
static int cell_is_chosen(const int64_t *slots, int64_t cell)
{
    uint32_t h = (uint32_t)slots[2] ^ (uint32_t)GOLDEN * (uint32_t)cell;
    h = (h ^ h >> 16) * (uint32_t)MIX_A;
    h = (h ^ h >> 13) * (uint32_t)MIX_B;
    return (int64_t)((h ^ h >> 16) >> 8) < slots[3];
}

static const float *as_float(int type, const char *from, int64_t n, float *room)
{
    if (type == FLOAT32)
        return (const float *)from;
    if (type == UINT8) {
        const uint8_t *bytes = (const uint8_t *)from;
        for (int64_t k = 0; k < n; k++)
            room[k] = bytes[k];
    } else if (type == BFLOAT16) {
        const uint16_t *halves = (const uint16_t *)from;
        for (int64_t k = 0; k < n; k++)
            room[k] = as_float32((int32_t)((uint32_t)halves[k] << 16));
    } else {
        const Half *halves = (const Half *)from;
        for (int64_t k = 0; k < n; k++)
            room[k] = halves[k];
    }
    return room;
}

/* Element k. */
static inline float element(int type, const char *from, int64_t k)
{
    if (type == UINT8)
        return ((const uint8_t *)from)[k];
    if (type == BFLOAT16)
        return as_float32((int32_t)((uint32_t)((const uint16_t *)from)[k] << 16));
    return type == FLOAT32 ? ((const float *)from)[k] : (float)((const Half *)from)[k];
}

static void store(int type, char *to, int64_t n, const float *value)
{
    if (type == UINT8) {
        uint8_t *bytes = (uint8_t *)to;
        for (int64_t k = 0; k < n; k++) {
            float v = value[k] > 0 ? value[k] : 0, rounded = (v < 255 ? v : 255) + ROUNDER;
            bytes[k] = (uint8_t)bits_of(rounded); /* the integer nearest to v is the low bits */
        }
    } else if (type == BFLOAT16) {
        uint16_t *halves = (uint16_t *)to;
        for (int64_t k = 0; k < n; k++) {
            uint32_t bits = bits_of(value[k]);
            uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
            halves[k] = (uint16_t)((bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : rounded);
        }
    } else if (type == FLOAT16) {
        Half *halves = (Half *)to;
        for (int64_t k = 0; k < n; k++)
            halves[k] = (Half)value[k];
    } else if ((const char *)value != to)
        memcpy(to, value, 4 * n);
}

typedef struct {
    const char *x;
    char *out;
    int in_type, out_type;
    int64_t x_stride, out_stride;                 /* bytes from one sample to the next */
    int64_t planes, height, width;                /* of a sample, in the order of memory */
    const int64_t *method, *partner, *box;        /* box: [batch, 4], or NULL */
    const float *lam, *norm;                      /* norm: mean, then inverse std, of each channel, or NULL */
    int streams;                                  /* whether out is written past the cache */
    int64_t step;                                 /* elements of a pixel side by side: one, or all channels */
    float *pattern;                               /* where they do, [2, BLOCK + step], norm of elements; or NULL */
} Job;

/* False where memory lacks. */
static int with_pattern(Job *job)
{
    int64_t n = BLOCK + job->step;
    if (!job->norm || job->step == 1)
        return 1;
    job->pattern = malloc(2 * n * sizeof(float));
    for (int64_t k = 0; job->pattern && k < 2 * n; k++)
        job->pattern[k] = job->norm[k < n ? k % job->step : job->step + (k - n) % job->step];
    return job->pattern != NULL;
}

/* n elements, at most BLOCK, `done` behind the first of a pixel. result: may be value. */
static void normalise(const Job *job, int64_t plane, int64_t done, const float *value, int64_t n, float *result)
{
    if (job->pattern) {
        const float *mean = job->pattern + done % job->step, *inverse_std = mean + BLOCK + job->step;
#pragma omp simd
        for (int64_t k = 0; k < n; k++)
            result[k] = fmaf(value[k], inverse_std[k], -(mean[k] * inverse_std[k]));
        return;
    }
    float inverse_std = job->norm[job->planes + plane], shift = -(job->norm[plane] * inverse_std);
#pragma omp simd
    for (int64_t k = 0; k < n; k++)
        result[k] = fmaf(value[k], inverse_std, shift);
}

typedef float Lanes __attribute__((vector_size(32)));
typedef Lanes AnyLanes __attribute__((aligned(1), may_alias));      /* at any address */

/* a * b + c, rounded once. */
static inline Lanes fma_of(Lanes a, float b, Lanes c)
{
#ifdef __FMA__
    return (Lanes)_mm256_fmadd_ps((__m256)a, _mm256_set1_ps(b), (__m256)c);
#else
    for (int k = 0; k < (int)(sizeof(Lanes) / sizeof(float)); k++)
        a[k] = fmaf(a[k], b, c[k]);
    return a;
#endif
}

/* to: aligned. */
static inline void stream(void *to, Lanes value)
{
#ifdef __AVX__
    _mm256_stream_ps(to, (__m256)value);
#else
    *(AnyLanes *)to = value;
#endif
}

/* After a thread's last `stream`. */
static void fence(void)
{
#ifdef __AVX__
    _mm_sfence();
#endif
}

/* Whether the pages of memory at `to` are there already: new ones come through the cache. */
static int is_warm(const char *to, int64_t size)
{
    unsigned char there = 0;
    uintptr_t page = sysconf(_SC_PAGESIZE), at = ((uintptr_t)to + size / 2) & ~(page - 1);
#ifdef __linux__
    if (mincore((void *)at, page, &there))
        return 0;
#endif
    return there & 1;
}

/* Writes bytes from several places to one, a line at a time. */
typedef struct {
    char *line, held[LINE];                       /* held: what the line at `line` is to get */
    int64_t first, end;                           /* of `held`, what is known */
} Stream;

static Stream stream_to(char *to)
{
    int64_t first = (uintptr_t)to % LINE;
    return (Stream){to - first, {0}, first, first};
}

static void stream_line(char *line, const char *from)
{
    for (int64_t at = 0; at < LINE; at += sizeof(Lanes))
        stream(line + at, *(const AnyLanes *)(from + at));
}

static void flush(Stream *s)
{
    if (s->end - s->first == LINE)
        stream_line(s->line, s->held);
    else
        memcpy(s->line + s->first, s->held + s->first, s->end - s->first);
    s->line += LINE, s->first = s->end = 0;
}

static void put(Stream *s, const char *from, int64_t n)
{
    if (s->end) {
        int64_t m = n < LINE - s->end ? n : LINE - s->end;
        memcpy(s->held + s->end, from, m);
        s->end += m, from += m, n -= m;
        if (s->end < LINE)
            return;
        flush(s);
    }
    for (; n >= LINE; n -= LINE, from += LINE, s->line += LINE)
        stream_line(s->line, from);
    memcpy(s->held, from, n);
    s->end = n;
}

/* Rows [top, bottom), columns [left, right). */
typedef struct {
    int64_t top, bottom, left, right;
} Box;
