/* Mixup and CutMix of whole batches, and their targets. */

static int blends(const Job *job, int64_t i)
{
    return job->method[i] == METHOD_MIXUP && job->lam[i] != 1;
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
            float *result = job->out_type == FLOAT32 ? (float *)target : room;
            normalise(job, plane, done, value, m, result);
            value = result;
        }
        store(job->out_type, target, m, value);
    }
}

/* As the reference's lerp, from the side with the larger weight, then normalised and stored. done: see `normalise`. */
static void lerp(const Job *job, int64_t plane, int64_t done, float lam, const float *own, const float *other,
                 char *to, int64_t n, float *room)
{
    const float *big = lam < 0.5f ? other : own, *small = lam < 0.5f ? own : other;
    float w = lam < 0.5f ? lam : 1 - lam, *result = job->out_type == FLOAT32 ? (float *)to : room;
    if (job->norm && !job->pattern) {
        float inverse_std = job->norm[job->planes + plane], shift = -(job->norm[plane] * inverse_std);
#pragma omp simd
        for (int64_t k = 0; k < n; k++)
            result[k] = fmaf(fmaf(small[k] - big[k], w, big[k]), inverse_std, shift);
    } else {
#pragma omp simd
        for (int64_t k = 0; k < n; k++)
            result[k] = fmaf(small[k] - big[k], w, big[k]);
    }
    if (job->pattern)
        normalise(job, plane, done, result, n, result);
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
        if (j >= 0 && (const char *)a == to + done * out_size)     /* in place: j needs it, too */
            a = memcpy(room, a, m * sizeof(float));
        lerp(job, plane, done, job->lam[i], a, b, to + done * out_size, m, room + 2 * BLOCK);
        if (j >= 0)
            lerp(job, plane, done, job->lam[j], b, a, other_to + done * out_size, m, room + 2 * BLOCK);
    }
}

/* What sample i takes from its partner's rows [first, last) of a plane. */
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

static inline Lanes lanes_mixed(const float *big, const float *small, float w, float inverse_std, float shift)
{
    Lanes a = *(const AnyLanes *)big, b = *(const AnyLanes *)small;
    return fma_of(fma_of(b - a, w, a), inverse_std, shift + (Lanes){0});
}

/* Two samples of float32 mixed with each other, in one pass; out may be x. */
static void blend_floats(const Job *job, int64_t i, int64_t j)
{
    int64_t n = job->height * job->width;
    const float *x = (const float *)(job->x + i * job->x_stride), *y = (const float *)(job->x + j * job->x_stride);
    float *to = (float *)(job->out + i * job->out_stride), *other_to = (float *)(job->out + j * job->out_stride);
    float u = job->lam[i], v = job->lam[j], shift = 0, inverse_std = 1;
    float w = u < 0.5f ? u : 1 - u, other_w = v < 0.5f ? v : 1 - v;
    for (int64_t plane = 0; plane < job->planes; plane++, x += n, y += n, to += n, other_to += n) {
        const float *big = u < 0.5f ? y : x, *small = u < 0.5f ? x : y;
        const float *other_big = v < 0.5f ? x : y, *other_small = v < 0.5f ? y : x;
        int64_t lanes = sizeof(Lanes) / sizeof(float), k = 0, head = -(uintptr_t)to / sizeof(float) % lanes;
        int streams = job->streams && ((uintptr_t)to - (uintptr_t)other_to) % sizeof(Lanes) == 0;
        if (job->norm)
            inverse_std = job->norm[job->planes + plane], shift = -(job->norm[plane] * inverse_std);
        while (k < n) {
            if (k < head || k + lanes > n) {
                float mixed = fmaf(small[k] - big[k], w, big[k]);
                float other = fmaf(other_small[k] - other_big[k], other_w, other_big[k]);
                to[k] = fmaf(mixed, inverse_std, shift), other_to[k] = fmaf(other, inverse_std, shift), k++;
                continue;
            }
            Lanes mixed = lanes_mixed(big + k, small + k, w, inverse_std, shift);
            Lanes other = lanes_mixed(other_big + k, other_small + k, other_w, inverse_std, shift);
            if (streams) {
                stream(to + k, mixed), stream(other_to + k, other);
            } else {
                *(AnyLanes *)(to + k) = mixed, *(AnyLanes *)(other_to + k) = other;
            }
            k += lanes;
        }
    }
}

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
mixed in place any sample. box: [batch, 4], or NULL. step: channels that lie together in a pixel, which rows are made
of; norm: [2, planes * step] or NULL. large: whether caches can't hold the batch. Returns 0; 1 where memory lacks; 2,
with nothing written, where these samples can't be mixed so. */
int fusedmix_mix(const void *x, void *out, int in_type, int out_type, int64_t x_stride, int64_t out_stride,
                 int64_t batch, int64_t planes, int64_t height, int64_t width, int64_t step, const int64_t *method,
                 const float *lam, const int64_t *partner, const int64_t *mate, const int64_t *box, const float *norm,
                 int large, int threads)
{
    Job job = {x, out, in_type, out_type, x_stride, out_stride, planes, height, width, method, partner, box, lam,
               norm, 0, step, NULL};
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
    else if (large && !in_place)
        rows = height;                            /* long copies fill new pages faster */
    if (!with_pattern(&job))
        return 1;
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
                if (in_type == FLOAT32 && out_type == FLOAT32 && !job.pattern)
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
    free(job.pattern);
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
        float big_on = fmaf(off - on, w, on), big_off = fmaf(on - off, w, off);
        for (int64_t k = 0; k < count; k++)
            row[k] = off;
        if (other >= 0 && other < count)
            row[other] = lam[i] < 0.5f ? big_on : big_off;
        if (own >= 0 && own < count)
            row[own] = own == other ? on : lam[i] < 0.5f ? big_off : big_on;
    }
    return 0;
}
