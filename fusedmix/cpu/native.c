/* The inner loops of mixup, CutMix and erased boxes on a CPU, with the reference's arithmetic: to be built without
contraction. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __AVX__
#include <immintrin.h>
#endif

enum { UINT8, FLOAT32, BFLOAT16, COPIED };        /* COPIED: two bytes an element, of any type */
enum { BLOCK = 512 };                             /* elements that are worked on at a time */
enum { LINE = 64 };                               /* bytes of a line of the cache */
enum { SHORT = 1 << 10, AHEAD = 1 << 12 };        /* bytes written past the cache at a time, read so far ahead */
static const int SIZES[] = {1, 4, 2, 2};          /* bytes of an element */

typedef struct {
    uint32_t word[4];
} Words;

/* The four Philox4x32-10 words at (index, stream). */
static inline Words words_at(uint64_t seed, uint64_t offset, uint32_t index, uint32_t stream)
{
    uint32_t c0 = (uint32_t)offset, c1 = (uint32_t)(offset >> 32), c2 = index, c3 = stream;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int r = 0; r < 10; r++) {
        uint64_t a = (uint64_t)0xD2511F53 * c0, b = (uint64_t)0xCD9E8D57 * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0, c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1, c3 = (uint32_t)a;
        k0 += 0x9E3779B9, k1 += 0xBB67AE85;
    }
    return (Words){{c0, c1, c2, c3}};
}

/* out: [4, n]. stream_step: 0 where all share one stream. */
void fusedmix_words(uint64_t seed, uint64_t offset, int64_t n, const int64_t *index, const int64_t *stream,
                    int64_t stream_step, uint32_t *out)
{
    for (int64_t i = 0; i < n; i++) {
        Words drawn = words_at(seed, offset, (uint32_t)index[i], (uint32_t)stream[i * stream_step]);
        for (int k = 0; k < 4; k++)
            out[k * n + i] = drawn.word[k];
    }
}

/* A recipe of mixup and CutMix for images of one size, and the constants of rng.py. */
typedef struct {
    int64_t height, width, least[2], sides[2];    /* least, sides: of minmax boxes, down and across; 0 sides: none */
    int64_t mode, has_box, has_mixup, correct_lam;
    float p, switch_prob, mixup_alpha, cutmix_alpha;
    float log[5], exp[8], expm1[6], sin[6], ln2, ln2_hi, ln2_lo, log2_e, max_log, max_ratio;
} Settings;
enum { BATCH, PAIR, ELEM };
enum { NONE, MIXUP, CUTMIX };
enum { STREAM_MATCHING, STREAM_SAMPLE, STREAM_BOX };

static float horner(const float *coefficients, int count, float x)
{
    float total = coefficients[count - 1];
    for (int k = count - 2; k >= 0; k--)
        total = total * x + coefficients[k];
    return total;
}
#define POLYNOMIAL(table, x) horner(table, sizeof(table) / sizeof(table[0]), x)

static float as_float32(int32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static float logarithm(const Settings *s, float x)
{
    const int32_t sqrt_half = 0x3F3504F3;
    int32_t bits;
    memcpy(&bits, &x, 4);
    bits += 0x3F800000 - sqrt_half;
    int32_t exponent = (bits >> 23) - 127;
    float m = as_float32((bits & 0x7FFFFF) + sqrt_half), z = (m - 1) / (m + 1);
    return POLYNOMIAL(s->log, z * z) * z + (float)exponent * s->ln2;
}

/* e to the power of -x. */
static float decay(const Settings *s, float x)
{
    float n = floorf(x * -s->log2_e + 0.5f);
    return POLYNOMIAL(s->exp, -x - n * s->ln2_hi - n * s->ln2_lo) * as_float32(((int32_t)n + 127) << 23);
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

static float symmetric_beta(const Settings *s, uint32_t word_u, uint32_t word_v, float alpha)
{
    float u = open_unit(word_u), v = open_unit(word_v);
    if (alpha == 1)
        return u;
    float length = -logarithm(s, u) / alpha;
    length = length < s->max_log ? length : s->max_log;
    float q = decay(s, length);
    float p = length < 0.25f ? POLYNOMIAL(s->expm1, length) * length : 1 - q;
    float c = POLYNOMIAL(s->sin, v * v) * v, r = q / (p * c * c);
    r = r < s->max_ratio ? r : s->max_ratio;
    float root = sqrtf(1 + r), small = r / (2 * root * (root + 1));
    return word_u & 1 ? 1 - small : small;
}

static float between(uint32_t word, float low, float high)
{
    return low + unit(word) * (high - low);
}

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* box: y0, x0, y1, x1. */
static void draw_box(const Settings *s, float lam, const Words *sample, const Words *place, int64_t *box)
{
    float root = sqrtf(1 - lam);
    for (int axis = 0; axis < 2; axis++) {
        int64_t side = axis ? s->width : s->height;
        if (s->sides[axis]) {
            int64_t cut = s->least[axis] + below(sample->word[2 + axis], s->sides[axis]);
            box[axis] = below(place->word[axis], side - cut + 1);
            box[2 + axis] = box[axis] + cut;
        } else {
            int64_t half = (int64_t)(root * (float)side) >> 1, centre = below(place->word[axis], side);
            box[axis] = clamp(centre - half, 0, side);
            box[2 + axis] = clamp(centre + half, 0, side);
        }
    }
}

/* As the reference's `draw`. mate: given unless `matches`, then drawn here. lam, box: [batch, ...], or given where
given_lam, given_box are not NULL. */
void fusedmix_draw(const Settings *s, uint64_t seed, uint64_t offset, int64_t sample_offset, int64_t batch, int matches,
                   const float *given_lam, const int32_t *given_box, int64_t *mate, int64_t *method, int64_t *partner,
                   float *lam, int64_t *box)
{
    if (matches) {
        int64_t even = batch % 2 == 0, n = batch - even;
        int64_t h = below(words_at(seed, offset, (uint32_t)sample_offset, STREAM_MATCHING).word[0], n);
        for (int64_t i = 0; i < batch; i++)
            mate[i] = ((2 * h - i) % n + n) % n;
        if (even)
            mate[h] = n, mate[n] = h;
    }
    for (int64_t i = 0; i < batch; i++) {
        int64_t lower = s->mode == PAIR && mate[i] < i ? mate[i] : i;
        uint32_t index = s->mode == BATCH ? 0 : (uint32_t)(sample_offset + lower);
        Words sample = words_at(seed, offset, index, STREAM_SAMPLE), place = {{0}};
        int cut = s->has_box && (!s->has_mixup || unit(sample.word[1]) < s->switch_prob);
        int mixed = mate[i] != i && (s->p >= 1 || unit(sample.word[0]) < s->p);
        int64_t drawn_box[4] = {0};
        float drawn;
        if (given_lam)
            drawn = given_lam[i] < 0 ? 0 : given_lam[i] > 1 ? 1 : given_lam[i];
        else
            drawn = symmetric_beta(s, sample.word[2], sample.word[3], cut ? s->cutmix_alpha : s->mixup_alpha);
        if (cut) {
            if (given_box) {
                for (int axis = 0; axis < 2; axis++) {
                    int64_t side = axis ? s->width : s->height;
                    drawn_box[axis] = clamp(given_box[4 * i + axis], 0, side);
                    drawn_box[2 + axis] = clamp(given_box[4 * i + 2 + axis], drawn_box[axis], side);
                }
            } else {
                place = words_at(seed, offset, index, STREAM_BOX);
                draw_box(s, drawn, &sample, &place, drawn_box);
            }
            if (s->correct_lam) {
                int64_t total = s->height * s->width;
                int64_t area = (drawn_box[2] - drawn_box[0]) * (drawn_box[3] - drawn_box[1]);
                drawn = (float)(total - area) / (float)total;
            }
        }
        method[i] = mixed ? cut ? CUTMIX : MIXUP : NONE;
        lam[i] = mixed ? drawn : 1;
        partner[i] = mixed ? mate[i] : i;
        for (int k = 0; k < 4; k++)
            box[4 * i + k] = mixed ? drawn_box[k] : 0;
    }
}

/* One try at Random Erasing's box, y0, x0, y1, x1: whether it fits. knob: areas, aspects; log_aspect: NULL where the
aspect is drawn linearly. */
static int erased_box(const Settings *s, const Words *w, const float *knob, const float *log_aspect, int64_t count,
                      int64_t *box)
{
    float area = between(w->word[0], knob[0], knob[1]) * (float)(s->height * s->width) / (float)count;
    float aspect = between(w->word[1], knob[2], knob[3]);
    if (log_aspect) {
        float power = between(w->word[1], log_aspect[0], log_aspect[1]);
        aspect = decay(s, fabsf(power));
        aspect = power > 0 ? 1 / aspect : aspect;
    }
    int64_t high = (int64_t)floorf(sqrtf(area * aspect) + 0.5f);
    int64_t wide = (int64_t)floorf(sqrtf(area / aspect) + 0.5f);
    if (high >= s->height || wide >= s->width)
        return 0;
    box[0] = below(w->word[2], s->height - high + 1), box[2] = box[0] + high;
    box[1] = below(w->word[3], s->width - wide + 1), box[3] = box[1] + wide;
    return 1;
}

/* As the reference's `holes`: boxes [n, holes, 4], of Random Erasing or of Cutout. stream: of the count, of the holes;
step: between the streams of tries, and of holes. knob: of Random Erasing areas, aspects, counts; of Cutout the length. */
void fusedmix_holes(const Settings *s, uint64_t seed, uint64_t offset, int64_t n, const int64_t *index,
                    const int64_t *stream, const int64_t *step, int64_t tries, const float *knob, int erasing,
                    int linear, int64_t holes, int64_t *boxes)
{
    float log_aspect[2] = {logarithm(s, knob[2]), logarithm(s, knob[3])};
    memset(boxes, 0, n * holes * 4 * sizeof(int64_t));
    for (int64_t i = 0; i < n; i++) {
        int64_t count = holes;
        if (erasing) {
            Words w = words_at(seed, offset, (uint32_t)index[i], (uint32_t)stream[0]);
            int64_t least = (int64_t)knob[4], more = (int64_t)knob[5] - least;
            count = least + below(w.word[0], more > 0 ? more + 1 : 1);
        }
        for (int64_t hole = 0; hole < count && hole < holes; hole++) {
            int64_t *box = boxes + 4 * (i * holes + hole), first = stream[1] + step[1] * hole;
            if (erasing) {
                for (int64_t attempt = 0; attempt < tries; attempt++) {
                    Words w = words_at(seed, offset, (uint32_t)index[i], (uint32_t)(first + step[0] * attempt));
                    if (erased_box(s, &w, knob, linear ? NULL : log_aspect, count, box))
                        break;
                }
                continue;
            }
            Words w = words_at(seed, offset, (uint32_t)index[i], (uint32_t)first);
            int64_t half = (int64_t)knob[0] / 2;
            for (int axis = 0; axis < 2; axis++) {
                int64_t side = axis ? s->width : s->height, centre = below(w.word[2 + axis], side);
                box[axis] = clamp(centre - half, 0, side);
                box[2 + axis] = clamp(centre + half, 0, side);
            }
        }
    }
}

static const float *as_float(int type, const char *from, int64_t n, float *room)
{
    if (type == FLOAT32)
        return (const float *)from;
    if (type == UINT8) {
        const uint8_t *bytes = (const uint8_t *)from;
        for (int64_t k = 0; k < n; k++)
            room[k] = bytes[k];
    } else {
        const uint16_t *halves = (const uint16_t *)from;
        uint32_t *bits = (uint32_t *)room;
        for (int64_t k = 0; k < n; k++)
            bits[k] = (uint32_t)halves[k] << 16;
    }
    return room;
}

static void store(int type, char *to, int64_t n, const float *value)
{
    if (type == UINT8) {
        uint8_t *bytes = (uint8_t *)to;
        for (int64_t k = 0; k < n; k++) {
            float v = value[k] > 0 ? value[k] : 0, rounded = (v < 255 ? v : 255) + 12582912.0f;
            uint32_t bits;
            memcpy(&bits, &rounded, 4);           /* 1.5 * 2**23 + v: the integer nearest to v is the low bits */
            bytes[k] = (uint8_t)bits;
        }
    } else if (type == BFLOAT16) {
        uint16_t *halves = (uint16_t *)to;
        for (int64_t k = 0; k < n; k++) {
            uint32_t bits;
            memcpy(&bits, &value[k], 4);
            uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
            halves[k] = (uint16_t)((bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : rounded);
        }
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
    const float *lam, *norm;                      /* norm: mean [planes], inverse std [planes], or NULL */
    int streams;                                  /* whether out is written past the cache */
} Job;

typedef float Lanes __attribute__((vector_size(32)));
typedef Lanes AnyLanes __attribute__((aligned(1), may_alias));      /* at any address */

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

static int blends(const Job *job, int64_t i)
{
    return job->method[i] == MIXUP && job->lam[i] != 1;
}

/* n elements, converted and normalised; `from` and `to` may be the same. */
static void convert(const Job *job, int64_t plane, const char *from, char *to, int64_t n, float *room)
{
    if (job->in_type == job->out_type && !job->norm) {
        if (from != to)
            memcpy(to, from, n * SIZES[job->in_type]);
        return;
    }
    for (int64_t done = 0; done < n; done += BLOCK) {
        int64_t m = n - done < BLOCK ? n - done : BLOCK;
        char *target = to + done * SIZES[job->out_type];
        const float *value = as_float(job->in_type, from + done * SIZES[job->in_type], m, room);
        if (job->norm) {
            float mean = job->norm[plane], inverse_std = job->norm[job->planes + plane];
            float *result = job->out_type == FLOAT32 ? (float *)target : room;
#pragma omp simd
            for (int64_t k = 0; k < m; k++)
                result[k] = (value[k] - mean) * inverse_std;
            value = result;
        }
        store(job->out_type, target, m, value);
    }
}

/* As the reference's lerp, from the side with the larger weight, then normalised and stored. */
static void lerp(const Job *job, int64_t plane, float lam, const float *own, const float *other, char *to, int64_t n,
                 float *room)
{
    const float *big = lam < 0.5f ? other : own, *small = lam < 0.5f ? own : other;
    float w = lam < 0.5f ? lam : 1 - lam, *result = job->out_type == FLOAT32 ? (float *)to : room;
    if (job->norm) {
        float mean = job->norm[plane], inverse_std = job->norm[job->planes + plane];
#pragma omp simd
        for (int64_t k = 0; k < n; k++)
            result[k] = (big[k] + w * (small[k] - big[k]) - mean) * inverse_std;
    } else {
#pragma omp simd
        for (int64_t k = 0; k < n; k++)
            result[k] = big[k] + w * (small[k] - big[k]);
    }
    store(job->out_type, to, n, result);
}

/* n elements of sample i from `own` and `other`; where j is one, too, of j the other way round. */
static void blend(const Job *job, int64_t plane, int64_t i, int64_t j, const char *own, const char *other, char *to,
                  char *other_to, int64_t n, float *room)
{
    int in_size = SIZES[job->in_type], out_size = SIZES[job->out_type];
    for (int64_t done = 0; done < n; done += BLOCK) {
        int64_t m = n - done < BLOCK ? n - done : BLOCK;
        const float *a = as_float(job->in_type, own + done * in_size, m, room);
        const float *b = as_float(job->in_type, other + done * in_size, m, room + BLOCK);
        lerp(job, plane, job->lam[i], a, b, to + done * out_size, m, room + 2 * BLOCK);
        if (j >= 0)
            lerp(job, plane, job->lam[j], b, a, other_to + done * out_size, m, room + 2 * BLOCK);
    }
}

/* What sample i takes from its partner's rows [first, last) of a plane: rows [top, bottom), columns [left, right). */
typedef struct {
    int64_t top, bottom, left, right;
} Box;

static Box box_of(const Job *job, int64_t i, int64_t first, int64_t last)
{
    static const int64_t nothing[4];
    const int64_t *box = job->box ? job->box + 4 * i : nothing;
    Box found = {box[0] > first ? box[0] : first, box[2] < last ? box[2] : last,
                 box[1] > 0 ? box[1] : 0, box[3] < job->width ? box[3] : job->width};
    if (found.right <= found.left)
        found.bottom = found.top;
    return found;
}

/* Rows [first, last) of a plane of a sample that is copied, past the cache; `other`: the same rows of its partner. */
static void stream_rows(const Job *job, int64_t i, int64_t plane, int64_t first, int64_t last, const char *other)
{
    int64_t size = SIZES[job->in_type], at = (plane * job->height + first) * job->width * size;
    int64_t n = (last - first) * job->width * size, done = 0;
    const char *own = job->x + i * job->x_stride + at;
    Stream to = stream_to(job->out + i * job->out_stride + at);
    Box box = box_of(job, i, first, last);
    for (int64_t row = box.top; row < box.bottom; row++) {
        int64_t start = ((row - first) * job->width + box.left) * size, length = (box.right - box.left) * size;
        put(&to, own + done, start - done);
        put(&to, other + start, length);
        done = start + length;
    }
    put(&to, own + done, n - done);
    flush(&to);
}

/* Rows [first, last) of a plane of sample i; `other`: the same rows of its partner. */
static void mix_rows(const Job *job, int64_t i, int64_t plane, int64_t first, int64_t last, const char *other,
                     float *room)
{
    int64_t at = (plane * job->height + first) * job->width, n = (last - first) * job->width;
    int in_size = SIZES[job->in_type], out_size = SIZES[job->out_type];
    const char *own = job->x + i * job->x_stride + at * in_size;
    char *to = job->out + i * job->out_stride + at * out_size;
    if (blends(job, i)) {
        blend(job, plane, i, -1, own, other, to, NULL, n, room);
        return;
    }
    if (job->streams && job->in_type == job->out_type && !job->norm) {
        stream_rows(job, i, plane, first, last, other);
        return;
    }
    convert(job, plane, own, to, n, room);
    Box box = box_of(job, i, first, last);
    for (int64_t row = box.top; row < box.bottom; row++) {
        int64_t start = (row - first) * job->width + box.left;
        convert(job, plane, other + start * in_size, to + start * out_size, box.right - box.left, room);
    }
}

#define MIXED(type, big, small, w, k)                                                               \
    ((*(const type *)(big + k) + w * (*(const type *)(small + k) - *(const type *)(big + k)) - mean) * inverse_std)

/* Two samples of float32 mixed with each other, in one pass; out may be x. */
static void blend_floats(const Job *job, int64_t i, int64_t j)
{
    int64_t n = job->height * job->width;
    const float *x = (const float *)(job->x + i * job->x_stride), *y = (const float *)(job->x + j * job->x_stride);
    float *to = (float *)(job->out + i * job->out_stride), *other_to = (float *)(job->out + j * job->out_stride);
    float u = job->lam[i], v = job->lam[j], mean = 0, inverse_std = 1;
    float w = u < 0.5f ? u : 1 - u, other_w = v < 0.5f ? v : 1 - v;
    for (int64_t plane = 0; plane < job->planes; plane++, x += n, y += n, to += n, other_to += n) {
        const float *big = u < 0.5f ? y : x, *small = u < 0.5f ? x : y;
        const float *other_big = v < 0.5f ? x : y, *other_small = v < 0.5f ? y : x;
        int64_t lanes = sizeof(Lanes) / sizeof(float), k = 0, head = -(uintptr_t)to / sizeof(float) % lanes;
        int streams = job->streams && ((uintptr_t)to - (uintptr_t)other_to) % sizeof(Lanes) == 0;
        if (job->norm)
            mean = job->norm[plane], inverse_std = job->norm[job->planes + plane];
        while (k < n) {
            if (k < head || k + lanes > n) {
                float mixed = MIXED(float, big, small, w, k), other = MIXED(float, other_big, other_small, other_w, k);
                to[k] = mixed, other_to[k] = other, k++;
                continue;
            }
            Lanes mixed = MIXED(AnyLanes, big, small, w, k);
            Lanes other = MIXED(AnyLanes, other_big, other_small, other_w, k);
            if (streams) {
                stream(to + k, mixed), stream(other_to + k, other);
            } else {
                *(AnyLanes *)(to + k) = mixed, *(AnyLanes *)(other_to + k) = other;
            }
            k += lanes;
        }
    }
}
#undef MIXED

/* As `blend_floats`, of any types, a block at a time. */
static void blend_both(const Job *job, int64_t i, int64_t j, float *room)
{
    int64_t n = job->height * job->width, size = n * SIZES[job->in_type], out_size = n * SIZES[job->out_type];
    const char *x = job->x + i * job->x_stride, *y = job->x + j * job->x_stride;
    char *to = job->out + i * job->out_stride, *other_to = job->out + j * job->out_stride;
    for (int64_t plane = 0; plane < job->planes; plane++, x += size, y += size, to += out_size, other_to += out_size)
        blend(job, plane, i, j, x, y, to, other_to, n, room);
}

/* What sample i takes from the rows at `from`, set aside at the same places of `aside`. */
static void set_aside(const Job *job, int64_t i, int64_t first, int64_t last, const char *from, char *aside)
{
    int size = SIZES[job->in_type];
    if (blends(job, i)) {
        memcpy(aside, from, (last - first) * job->width * size);
        return;
    }
    Box box = box_of(job, i, first, last);
    for (int64_t row = box.top; row < box.bottom; row++) {
        int64_t start = ((row - first) * job->width + box.left) * size;
        memcpy(aside + start, from + start, (box.right - box.left) * size);
    }
}

/* Mixes a batch into `out`, which may be x.

mate: samples that are worked on together, each the other's. partner: itself or the mate, or in a batch that is not
mixed in place any sample. box: [batch, 4], or NULL. norm: [2, planes] or NULL. large: whether caches can't hold the
batch. Returns 0; 1 where memory lacks; 2, with nothing written, where these samples can't be mixed so. */
int fusedmix_mix(const void *x, void *out, int in_type, int out_type, int64_t x_stride, int64_t out_stride,
                 int64_t batch, int64_t planes, int64_t height, int64_t width, const int64_t *method,
                 const float *lam, const int64_t *partner, const int64_t *mate, const int64_t *box, const float *norm,
                 int large, int threads)
{
    Job job = {x, out, in_type, out_type, x_stride, out_stride, planes, height, width, method, partner, box, lam,
               norm, 0};
    int64_t rows = width < BLOCK ? BLOCK / width : 1;
    int failed = 0, mutual = 1, in_place = x == out;
    for (int64_t i = 0; i < batch; i++) {
        if (partner[i] < 0 || partner[i] >= batch)
            return 2;
        mutual &= mate[i] >= 0 && mate[i] < batch && mate[mate[i]] == i && (partner[i] == i || partner[i] == mate[i]);
    }
    if (in_place && !mutual)
        return 2;
    int64_t row_bytes = width * SIZES[in_type];
    int64_t written = (batch - 1) * out_stride + planes * height * width * SIZES[out_type];
    job.streams = large && !in_place && is_warm(out, written);
    if (job.streams)
        rows = row_bytes < SHORT ? SHORT / row_bytes : 1;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *room = malloc((3 * BLOCK + in_place * rows * width) * sizeof(float));
        char *aside = (char *)(room + 3 * BLOCK);
        if (!room) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic, 8)
        for (int64_t i = 0; i < batch; i++) {
            int64_t j = mutual ? mate[i] : i;
            if (j < i || !room)                   /* the first of the two takes care of both */
                continue;
            int both = j != i && partner[i] == j && partner[j] == i && blends(&job, i) && blends(&job, j);
            if (both) {
                if (in_type == FLOAT32 && out_type == FLOAT32)
                    blend_floats(&job, i, j);
                else
                    blend_both(&job, i, j, room);
                continue;
            }
            for (int64_t plane = 0; plane < planes; plane++)
                for (int64_t first = 0; first < height; first += rows) {
                    int64_t last = first + rows < height ? first + rows : height;
                    int64_t at = (plane * height + first) * width * SIZES[in_type];
                    const char *for_i = job.x + partner[i] * x_stride + at, *for_j = job.x + partner[j] * x_stride + at;
                    for (int64_t near = 0; job.streams && near < rows * row_bytes; near += LINE) {
                        __builtin_prefetch(job.x + i * x_stride + at + AHEAD + near);
                        __builtin_prefetch(job.x + j * x_stride + at + AHEAD + near);
                    }
                    if (in_place && partner[j] == i && j != i) {
                        set_aside(&job, j, first, last, for_j, aside);
                        for_j = aside;
                    }
                    mix_rows(&job, i, plane, first, last, for_i, room);
                    if (j != i)
                        mix_rows(&job, j, plane, first, last, for_j, room);
                }
        }
        free(room);
        fence();
    }
    return failed;
}

/* Rows of `off`, with the two labelled entries on top: lam between on and off, or `on` where both agree. A class out of
range labels nothing. Returns as `fusedmix_mix`. */
int fusedmix_one_hot(const int64_t *classes, const int64_t *partner, const float *lam, float on, float off,
                     int64_t batch, int64_t count, float *out, int threads)
{
    for (int64_t i = 0; i < batch; i++)
        if (partner[i] < 0 || partner[i] >= batch)
            return 2;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < batch; i++) {
        int64_t own = classes[i], other = classes[partner[i]];
        float *row = out + i * count;
        float w = lam[i] < 0.5f ? lam[i] : 1 - lam[i];
        float big_on = on + w * (off - on), big_off = off + w * (on - off);
        for (int64_t k = 0; k < count; k++)
            row[k] = off;
        if (other >= 0 && other < count)
            row[other] = lam[i] < 0.5f ? big_on : big_off;
        if (own >= 0 && own < count)
            row[own] = own == other ? on : lam[i] < 0.5f ? big_off : big_on;
    }
    return 0;
}

/* Where noise comes from: constants and lines of rng.py. */
typedef struct {
    int64_t stream, step, shift, first;
    const float *table;
} Noise;

/* Standard normal noise of the numbers [number, number + n), n at most BLOCK, as the reference's `normal`. */
static void normals(const Noise *noise, uint32_t key, int64_t number, int64_t n, float *out)
{
    uint32_t word[BLOCK + 6];
    int64_t skipped = number & 3;
    for (int64_t k = 0; k < skipped + n; k += 4) {
        Words drawn = words_at(key, 0, 0, (uint32_t)(noise->stream + noise->step * ((number + k) >> 2)));
        memcpy(word + k, drawn.word, 16);
    }
    for (int64_t k = 0; k < n; k++) {
        float u = open_unit(word[skipped + k]);
        uint32_t bits;
        memcpy(&bits, &u, 4);
        const float *line = noise->table + 2 * ((int64_t)(bits >> noise->shift) - noise->first);
        float size = line[1] * u + line[0];
        memcpy(&bits, &size, 4);
        out[k] = as_float32((int32_t)(bits ^ word[skipped + k] << 31));
    }
}

/* edge: y0, x0, y1, x1. */
static Box box_within(const int64_t *edge, int64_t height, int64_t width)
{
    int64_t left = clamp(edge[1], 0, width);
    return (Box){.top = clamp(edge[0], 0, height), .bottom = clamp(edge[2], 0, height), .left = left,
                 .right = clamp(edge[3], left, width)};
}

/* Fills the boxes [batch, count, 4] of the samples whose `row` of fill, [rows, 2, planes], is not -1: with value and
sigma times noise, of each pixel where `pixels` [rows] says so, else of each plane. */
void fusedmix_noise(char *out, int type, int64_t stride, int64_t batch, int64_t planes, int64_t height, int64_t width,
                    const int64_t *box, int64_t count, const int64_t *row, const float *fill, const int64_t *pixels,
                    const int64_t *key, const Noise *noise, int threads)
{
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < batch; i++)
        for (int64_t k = 0; k < count && row[i] >= 0; k++) {
            Box b = box_within(box + 4 * (i * count + k), height, width);
            for (int64_t plane = 0; plane < planes; plane++) {
                const float *from = fill + row[i] * 2 * planes + plane;
                float room[BLOCK], same;
                normals(noise, (uint32_t)key[i], plane, 1, &same);
                for (int64_t y = b.top; y < b.bottom; y++)
                    for (int64_t x = b.left, n; x < b.right; x += n) {
                        int64_t number = (plane * height + y) * width + x;
                        n = b.right - x < BLOCK ? b.right - x : BLOCK;
                        if (pixels[row[i]])
                            normals(noise, (uint32_t)key[i], number, n, room);
                        for (int64_t j = 0; j < n; j++)
                            room[j] = from[0] + from[planes] * (pixels[row[i]] ? room[j] : same);
                        store(type, out + i * stride + number * SIZES[type], n, room);
                    }
            }
        }
}

/* Fills n bytes with a line's, which repeats from wherever an element begins. */
static void fill_row(char *to, int64_t n, const char *line, int streams)
{
    int64_t head = -(uintptr_t)to % LINE;
    head = head < n ? head : n;
    memcpy(to, line, head);
    for (to += head, n -= head; n >= LINE; to += LINE, n -= LINE)
        if (streams)
            stream_line(to, line);
        else
            memcpy(to, line, LINE);
    memcpy(to, line, n);
}

/* Fills the boxes [batch, count, 4] of the samples whose `row` of value, [rows, planes] of `size` bytes, is not -1.
large: whether caches can't hold the batch. */
void fusedmix_fill(char *out, int64_t size, int64_t stride, int64_t batch, int64_t planes, int64_t height,
                   int64_t width, const int64_t *box, int64_t count, const int64_t *row, const char *value, int large,
                   int threads)
{
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < batch; i++)
            for (int64_t k = 0; k < count && row[i] >= 0; k++) {
                Box b = box_within(box + 4 * (i * count + k), height, width);
                for (int64_t plane = 0; plane < planes; plane++) {
                    char line[LINE], *to = out + i * stride + ((plane * height + b.top) * width + b.left) * size;
                    for (int64_t at = 0; at < LINE; at += size)
                        memcpy(line + at, value + (row[i] * planes + plane) * size, size);
                    for (int64_t y = b.top; y < b.bottom; y++, to += width * size)
                        fill_row(to, (b.right - b.left) * size, line, large);
                }
            }
        fence();
    }
}
