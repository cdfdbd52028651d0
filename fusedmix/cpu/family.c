/* The whole family: batches blended, with regions replaced and erased, in one pass over the images. */

/* Standard normal noise of the numbers [number, number + n), n at most BLOCK, as the reference's `normal`. table: the
lines of rng.py. */
static APART void normals(const float *table, uint32_t key, int64_t number, int64_t n, float *out)
{
    uint32_t word[BLOCK + 6];
    int64_t skipped = number & 3;
    for (int64_t k = 0; k < skipped + n; k += 4) {
        uint32_t stream = (uint32_t)(STREAM_NOISE + STREAM_STEP * ((number + k) >> 2));
        Words drawn = words_of(key, 0, 0, stream, NOISE_ROUNDS);
        memcpy(word + k, drawn.word, 16);
    }
    for (int64_t k = 0; k < n; k++) {
        float share = (float)(int32_t)word[skipped + k];
        const float *line = table + 2 * ((uint32_t)bits_of(share) >> NORMAL_SHIFT);
        out[k] = fmaf(line[1], share, line[0]);
    }
}

/* edge: y0, x0, y1, x1. */
static Box box_within(const int64_t *edge, int64_t height, int64_t width)
{
    int64_t left = clamp(edge[1], 0, width);
    return (Box){.top = clamp(edge[0], 0, height), .bottom = clamp(edge[2], 0, height), .left = left,
                 .right = clamp(edge[3], left, width)};
}

/* What a call does to a batch. */
typedef struct {
    Job job;
    int64_t height, width, channels;
    Regions region[2];                            /* of the choice, and what is erased */
    const float *fill;                            /* [rows, 2, channels]: value and sigma */
    const int32_t *field;                         /* [batch, height, width], or NULL: FMix's ranks */
    const float *table;                           /* see `normals` */
    int bilinear;                                 /* how ResizeMix looks up pixels */
    const int64_t *order;                         /* where samples lie in the result, or NULL: as in x */
} Family;

/* What a thread works with. */
typedef struct {
    char *mask[2], *lines, *aside;                /* mask: of each element of a plane, for each region */
    float *own, *other, *value, *filling, *noise; /* BLOCK elements each */
    float *down, *across;                         /* SmoothMix: weights of rows, and in them; ResizeMix: of the next */
    int32_t *row, *column;                        /* ResizeMix: the pixels of the partner that rows and columns show */
} Room;

/* One of the two samples that are worked on together. */
typedef struct {
    int64_t i;
    const char *own, *other;
    int blends, soft, boxed;                      /* boxed: copied, but for boxes */
    int64_t first[2], last[2];                    /* of a plane's elements, those that a region may have taken */
} Sample;

static const int64_t *slots_of(const Family *f, int stage, int64_t i)
{
    return f->region[stage].slots + i * f->region[stage].count;
}

/* Where sample i lies in the result. */
static char *result_of(const Family *f, int64_t i)
{
    return f->job.out + (f->order ? f->order[i] : i) * f->job.out_stride;
}

/* Half the side of the square in which GridMask's grid turns. */
static int64_t centre_of(const Family *f)
{
    return (int64_t)ceil(hypot(f->height, f->width)) / 2 + 2;
}

/* GridMask: stripes are looked up instead of divided out. */
static APART void mark_grid(const Family *f, const int64_t *slots, char *mask, char *lines)
{
    int64_t d = at_least_1(slots[0]), cosine = slots[4], sine = slots[5], shift = TURN_BITS + 1;
    int64_t centre = centre_of(f), last = 2 * centre;
    for (int64_t line = 0; line <= last; line++) {
        int64_t row = (line + d - slots[2]) % d, column = (line + d - slots[3]) % d;
        lines[2 * line] = (row < 0 ? row + d : row) < slots[1];
        lines[2 * line + 1] = (column < 0 ? column + d : column) < slots[1];
    }
    for (int64_t y = 0; y < f->height; y++) {
        int64_t down = 2 * y + 1 - f->height, across = 1 - f->width;
        int64_t row = cosine * down + sine * across + (centre << shift);
        int64_t column = cosine * across - sine * down + (centre << shift);
        for (int64_t x = 0; x < f->width; x++, row += 2 * sine, column += 2 * cosine) {
            int64_t r = clamp(row >> shift, 0, last), c = clamp(column >> shift, 0, last);
            *mask++ = (lines[2 * r] | lines[2 * c + 1]) != (slots[6] != 0);
        }
    }
}

/* Hide-and-Seek and GridMix. */
static APART void mark_cells(const Family *f, const int64_t *slots, char *mask)
{
    int64_t tall = at_least_1(slots[0]), wide = at_least_1(slots[1]), across = (f->width + wide - 1) / wide;
    for (int64_t y = 0; y < f->height; y++, mask += f->width) {
        if (y % tall) {
            memcpy(mask, mask - f->width, f->width);
            continue;
        }
        for (int64_t x = 0, cell = y / tall * across; x < f->width; x += wide, cell++)
            memset(mask + x, cell_is_chosen(slots, cell), f->width - x < wide ? f->width - x : wide);
    }
}

/* Marks what a region of sample i takes: 1 for each such element of a plane, 0 for others from `first` to `last`. */
static APART void mark(const Family *f, int64_t i, int stage, char *mask, char *lines, int64_t *first, int64_t *last)
{
    const int64_t *slots = slots_of(f, stage, i), code = f->region[stage].code[i];
    int64_t method = METHOD_OF(code), pixels = f->height * f->width, from = 0, to = pixels;
    *first = *last = 0;
    if (method == METHOD_GRIDMASK) {
        mark_grid(f, slots, mask, lines);
    } else if (method == METHOD_HIDE || method == METHOD_GRIDMIX) {
        mark_cells(f, slots, mask);
    } else if (method == METHOD_FMIX) {
        const int32_t *rank = f->field + i * pixels;
        for (int64_t k = 0; k < pixels; k++)
            mask[k] = rank[k] >= slots[0];
    } else if (BOXED(code)) {
        int64_t top = f->height, bottom = 0;
        for (int64_t k = 0; k < COUNT_OF(code); k++) {
            Box box = box_within(slots + 4 * k, f->height, f->width);
            if (box.top < box.bottom && box.left < box.right) {
                top = box.top < top ? box.top : top;
                bottom = box.bottom > bottom ? box.bottom : bottom;
            }
        }
        if (top >= bottom)
            return;
        from = top * f->width - BLOCK, to = bottom * f->width + BLOCK;      /* whole blocks are looked at */
        from = from > 0 ? from : 0, to = to < pixels ? to : pixels;
        memset(mask + from, 0, to - from);
        for (int64_t k = 0; k < COUNT_OF(code); k++) {
            Box box = box_within(slots + 4 * k, f->height, f->width);
            for (int64_t y = box.top; y < box.bottom; y++)
                memset(mask + y * f->width + box.left, 1, box.right - box.left);
        }
        *first = top * f->width * f->job.step, *last = bottom * f->width * f->job.step;
    } else {
        return;
    }
    if (*last == 0)
        *last = pixels * f->job.step;
    if (f->job.step > 1)
        for (int64_t k = to - 1; k >= from; k--)
            memset(mask + k * f->job.step, mask[k], f->job.step);
}

/* Which pixels of an axis of `side` pixels are shown when it is shrunk to [start, stop), and the weight of the next. */
static APART void shrink(int64_t start, int64_t stop, int64_t side, int bilinear, int32_t *pixel, float *weight)
{
    int64_t size = at_least_1(stop - start);
    float scale = (float)side / (float)size, end = (float)(side > 2 ? side - 2 : 0);
    for (int64_t k = clamp(start, 0, side); k < clamp(stop, 0, side); k++) {
        float at = ((float)(k - start) + 0.5f) * scale - 0.5f;
        at = at > 0 ? at : 0, at = at < (float)(side - 1) ? at : (float)(side - 1);
        float before = floorf(at);
        before = before < end ? before : end;
        pixel[k] = bilinear ? (int32_t)before : (int32_t)clamp((k - start) * side / size, 0, side - 1);
        weight[k] = at - before;
    }
}

static APART void prepare(const Family *f, Sample *s, Room *room)
{
    const Job *job = &f->job;
    int64_t i = s->i;
    s->blends = blends(job, i), s->soft = job->method[i] == METHOD_SMOOTHMIX;
    s->boxed = job->in_type == job->out_type && !job->norm && !job->streams && !s->blends && !s->soft;
    for (int stage = 0; stage < 2 && f->region[stage].count; stage++) {
        int64_t code = f->region[stage].code[i], method = METHOD_OF(code);
        s->boxed &= method == METHOD_NONE || (BOXED(code) && method != METHOD_RESIZEMIX);
    }
    for (int stage = 0; stage < 2; stage++) {
        s->first[stage] = s->last[stage] = 0;
        if (f->region[stage].count && !s->boxed)
            mark(f, i, stage, room->mask[stage], room->lines, &s->first[stage], &s->last[stage]);
    }
    if (s->soft) {
        const int64_t *slots = slots_of(f, 0, i);
        for (int64_t y = 0; y < f->height; y++)
            room->down[y] = bell(y - slots[0], as_float32((int32_t)slots[2]));
        for (int64_t x = 0; x < f->width * f->job.step; x++)
            room->across[x] = bell(x / f->job.step - slots[1], as_float32((int32_t)slots[3]));
    } else if (job->method[i] == METHOD_RESIZEMIX) {
        const int64_t *slots = slots_of(f, 0, i);
        shrink(slots[0], slots[2], f->height, f->bilinear, room->row, room->down);
        shrink(slots[1], slots[3], f->width, f->bilinear, room->column, room->across);
    }
}

/* Pixels [x, end) of row y of the shrunk partner. from: the partner's plane, or the channel in it; to: of pixel x. */
static inline void shrink_row(const Family *f, const Room *room, int type, const char *from, int64_t y, int64_t x,
                              int64_t end, float *to)
{
    int64_t step = f->job.step, right = f->width > 1 ? step : 0, below = f->height > 1 ? f->width * step : 0;
    from += room->row[y] * f->width * step * SIZES[type];
    if (!f->bilinear) {
        for (; x < end; x++, to += step)
            *to = element(type, from, room->column[x] * step);
        return;
    }
    for (; x < end; x++, to += step) {
        int64_t at = room->column[x] * step;
        float upper = element(type, from, at), lower = element(type, from, at + below), across = room->across[x];
        upper += across * (element(type, from, at + right) - upper);
        lower += across * (element(type, from, at + below + right) - lower);
        *to = upper + room->down[y] * (lower - upper);
    }
}

/* The shrunk partner where its box lies in the elements [at, at + n) of a plane. to: of the first of them. */
static APART void fill_shrunk(const Family *f, const Room *room, Box box, const char *from, int64_t at, int64_t n,
                              float *to)
{
    int64_t step = f->job.step, row = f->width * step;
    int type = f->job.in_type;
    for (int64_t y = box.top > at / row ? box.top : at / row; y < box.bottom && y * row < at + n; y++) {
        int64_t first = at - y * row, last = at + n - y * row;          /* elements of the row */
        first = first > box.left * step ? first : box.left * step;
        last = last < box.right * step ? last : box.right * step;
        for (int64_t c = 0; c < step; c++) {
            int64_t x = step > 1 ? (first - c + step - 1) / step : first;
            int64_t end = step > 1 ? (last - c + step - 1) / step : last;
            const char *channel = from + c * SIZES[type];
            float *start = to + (y * row + x * step + c - at);
            if (type == FLOAT32)
                shrink_row(f, room, FLOAT32, channel, y, x, end, start);
            else if (type == UINT8)
                shrink_row(f, room, UINT8, channel, y, x, end, start);
            else
                shrink_row(f, room, type, channel, y, x, end, start);
        }
    }
}

/* Value and noise, of elements [at, at + n) of a plane. value: of the plane's first channel, sigmas `channels` on. */
static APART void fill_noisy(const Family *f, const Room *room, int kind, uint32_t key, const float *value,
                             int64_t plane, int64_t at, int64_t n, float *to)
{
    int64_t pixels = f->height * f->width;
    for (int64_t c = 0; c < f->job.step; c++) {
        int64_t first = (at + (c + f->job.step - at % f->job.step) % f->job.step) / f->job.step;
        int64_t end = (at + n + f->job.step - 1 - c) / f->job.step;
        int each = kind == NOISE_PIXEL;
        if (first >= end)
            continue;
        if (each)
            normals(f->table, key, (plane + c) * pixels + first, end - first, room->noise);
        else
            normals(f->table, key, plane + c, 1, room->noise);
        for (int64_t k = 0; k < end - first; k++)
            to[(first + k) * f->job.step + c - at] = fmaf(room->noise[each ? k : 0], value[f->channels + c], value[c]);
    }
}

/* What elements [at, at + n) of a plane are filled with where `mask` says so, or all for NULL: the n at the result. */
static APART const float *filled(const Family *f, const Sample *s, int stage, int64_t plane, int64_t at, int64_t n,
                           const char *mask, const Room *room)
{
    const Job *job = &f->job;
    int64_t code = f->region[stage].code[s->i], method = METHOD_OF(code), pixels = f->height * f->width;
    const char *other = s->other + plane * pixels * SIZES[job->in_type];
    if (!DROPS(code) && method != METHOD_RESIZEMIX)
        return as_float(job->in_type, other + at * SIZES[job->in_type], n, room->filling);
    if (method == METHOD_RESIZEMIX) {
        Box box = box_within(slots_of(f, stage, s->i), f->height, f->width);
        fill_shrunk(f, room, box, other, at, n, room->filling);
        return room->filling;
    }
    const float *value = f->fill + (code >> ROW_SHIFT) * 2 * f->channels + plane;
    int kind = code >> NOISE_SHIFT & 3;
    if (kind == NOISE_NONE) {
        for (int64_t c = 0; c < f->job.step; c++) {
            float same = value[(at + c) % f->job.step];
            for (int64_t k = c; k < n; k += f->job.step)
                room->filling[k] = same;
        }
        return room->filling;
    }
    for (int64_t k = 0, end; k < n; k = end) {    /* only where it is needed */
        for (end = mask ? k + 1 : n; end < n && mask[end] == mask[k]; end++)
            ;
        if (!mask || mask[k])
            fill_noisy(f, room, kind, (uint32_t)f->region[stage].key[s->i], value, plane, at + k, end - k,
                       room->filling + k);
    }
    return room->filling;
}

/* SmoothMix, of elements [at, at + n) of a plane. */
static APART void soften(const Family *f, const Room *room, int64_t at, int64_t n, const float *own, const float *other,
                   float *to)
{
    int64_t row = f->width * f->job.step, y = at / row, x = at % row;
    for (int64_t k = 0, m; k < n; k += m, x = 0, y++) {
        const float *across = room->across + x;
        float down = room->down[y];
        m = row - x < n - k ? row - x : n - k;
        for (int64_t j = 0; j < m; j++) {
            float share = down * across[j] * (1.0f / (1 << 2 * BELL_BITS));
            to[k + j] = fmaf(other[k + j] - own[k + j], share, own[k + j]);
        }
    }
}

/* `filling` where mask says so, else `value`, which may be `to`. */
static APART void choose(const char *restrict mask, const float *restrict filling, const float *value, int64_t n,
                         float *to)
{
#pragma omp simd
    for (int64_t k = 0; k < n; k++)
        to[k] = mask[k] ? filling[k] : value[k];
}

/* A sample that is copied, but for boxes. */
static APART void make_boxed(const Family *f, const Sample *s, const Room *room)
{
    const Job *job = &f->job;
    int64_t row = job->width, n = job->height * row, size = SIZES[job->in_type];
    char *to = result_of(f, s->i);
    if (s->own != to)
        memcpy(to, s->own, job->planes * n * size);
    for (int stage = 0; stage < 2 && f->region[stage].count; stage++) {
        int64_t code = f->region[stage].code[s->i];
        for (int64_t k = 0; METHOD_OF(code) != METHOD_NONE && k < COUNT_OF(code); k++) {
            Box box = box_within(slots_of(f, stage, s->i) + 4 * k, f->height, f->width);
            int64_t length = (box.right - box.left) * f->job.step;
            for (int64_t plane = 0; plane < job->planes; plane++)
                for (int64_t y = box.top; y < box.bottom; y++)
                    for (int64_t done = 0, m; done < length; done += m) {
                        int64_t at = y * row + box.left * f->job.step + done;
                        m = length - done < BLOCK ? length - done : BLOCK;
                        store(job->out_type, to + (plane * n + at) * size, m,
                              filled(f, s, stage, plane, at, m, NULL, room));
                    }
        }
    }
}

/* Makes a sample of the result. */
static APART void make(const Family *f, const Sample *s, const Room *room)
{
    const Job *job = &f->job;
    int64_t n = job->height * job->width, in_size = SIZES[job->in_type], out_size = SIZES[job->out_type];
    int copies = job->in_type == job->out_type && !job->norm;
    char *out = result_of(f, s->i), streamed[BLOCK * sizeof(float)];
    Stream stream = stream_to(out);
    for (int64_t plane = 0; plane < job->planes; plane++) {
        const char *from = s->own + plane * n * in_size, *other = s->other + plane * n * in_size;
        for (int64_t at = 0, m; at < n; at += m) {
            m = n - at < BLOCK ? n - at : BLOCK;
            char *to = out + (plane * n + at) * out_size;
            int taken[2];
            for (int stage = 0; stage < 2; stage++)
                taken[stage] = at < s->last[stage] && at + m > s->first[stage] &&
                               memchr(room->mask[stage] + at, 1, m) != NULL;
            if (copies && !s->blends && !s->soft && !taken[0] && !taken[1]) {
                if (job->streams)
                    put(&stream, from + at * in_size, m * in_size);
                else if (from + at * in_size != to)
                    memcpy(to, from + at * in_size, m * in_size);
                continue;
            }
            const float *value = as_float(job->in_type, from + at * in_size, m, room->own);
            float *result = job->out_type == FLOAT32 && !job->streams ? (float *)to : room->value;
            if (s->blends || s->soft) {
                const float *partner = as_float(job->in_type, other + at * in_size, m, room->other);
                float lam = job->lam[s->i], w = lam < 0.5f ? lam : 1 - lam;
                const float *big = lam < 0.5f ? partner : value, *small = lam < 0.5f ? value : partner;
                if (s->soft)
                    soften(f, room, at, m, value, partner, result);
                else
                    for (int64_t k = 0; k < m; k++)
                        result[k] = fmaf(small[k] - big[k], w, big[k]);
                value = result;
            }
            for (int stage = 0; stage < 2; stage++) {
                if (!taken[stage])
                    continue;
                const char *mask = room->mask[stage] + at;
                const float *filling = filled(f, s, stage, plane, at, m, mask, room);
                choose(mask, filling, value, m, result);
                value = result;
            }
            if (job->norm) {
                normalise(job, plane, at, value, m, result);
                value = result;
            }
            store(job->out_type, job->streams ? streamed : to, m, value);
            if (job->streams)
                put(&stream, streamed, m * out_size);
        }
    }
    if (job->streams)
        flush(&stream);
}

static APART Room *room_for(const Family *f, int64_t sample_bytes)
{
    int64_t row = f->width * f->job.step, pixels = f->height * row;
    int64_t floats = 5 * BLOCK + f->height + row, ints = f->height + f->width;
    int64_t bytes = 2 * pixels + 2 * (2 * centre_of(f) + 1), ragged = -bytes & 3;
    Room *room = malloc(sizeof(Room) + 4 * (floats + ints) + bytes + ragged + sample_bytes);
    if (!room)
        return NULL;
    float *next = (float *)(room + 1);
    room->own = next, room->other = next += BLOCK, room->value = next += BLOCK, room->filling = next += BLOCK;
    room->noise = next += BLOCK, room->down = next += BLOCK, room->across = next += f->height;
    room->row = (int32_t *)(next + row), room->column = room->row + f->height;
    room->mask[0] = (char *)(room->column + f->width), room->mask[1] = room->mask[0] + pixels;
    room->lines = room->mask[1] + pixels, room->aside = room->mask[0] + bytes + ragged;
    return room;
}

/* Whether the regions of all samples are what the family knows: plans come from anywhere. */
static APART int is_known(const Family *f, int64_t batch, int64_t rows)
{
    for (int stage = 0; stage < 2; stage++)
        for (int64_t i = 0; f->region[stage].count && i < batch; i++) {
            int64_t code = f->region[stage].code[i], method = METHOD_OF(code);
            int64_t needed = method == METHOD_GRIDMASK ? 7 : BOXED(code) ? 4 * COUNT_OF(code) : 4;
            if (code < 0 || method > METHOD_FMIX || needed > f->region[stage].count)
                return 0;
            if ((DROPS(code) && code >> ROW_SHIFT >= rows) || (method == METHOD_FMIX && !f->field))
                return 0;
            if (stage == 0 ? method != f->job.method[i] : method != METHOD_NONE && !DROPS(code))
                return 0;
        }
    return 1;
}

/* Makes the batch `out`, which may be x, of x. mate: see `fusedmix_mix`; partner: any of the `samples` of x. rows: of
fill. last: whether the channels of a pixel lie together. order: see Family. Returns as `fusedmix_mix`. */
int fusedmix_family(const void *x, void *out, int in_type, int out_type, int64_t x_stride, int64_t out_stride,
                    int64_t batch, int64_t samples, int64_t channels, int64_t height, int64_t width, int last,
                    const int64_t *method, const float *lam, const int64_t *partner, const int64_t *mate,
                    const Regions *region, const Regions *erased, const float *norm, const float *fill, int64_t rows,
                    const int32_t *field, const float *table, const int64_t *order, int bilinear, int large,
                    int threads)
{
    int64_t step = last ? channels : 1;
    Family f = {{x, out, in_type, out_type, x_stride, out_stride, channels / step, height, width * step, method,
                 partner, NULL, lam, norm, 0, step, NULL},
                height, width, channels, {*region, *erased}, fill, field, table, bilinear, order};
    int failed = 0, mutual = 1, alone = 1, in_place = x == out;
    for (int64_t i = 0; i < batch; i++) {
        if (partner[i] < 0 || partner[i] >= samples)
            return 2;
        alone &= partner[i] == i;
        mutual &= mate[i] >= 0 && mate[i] < batch && mate[mate[i]] == i && (partner[i] == i || partner[i] == mate[i]);
    }
    if ((in_place && !mutual && !alone) || !is_known(&f, batch, rows))
        return 2;
    int64_t bytes = channels * height * width * SIZES[in_type];
    const char *somewhere = f.job.out + (order ? order[0] : batch / 2) * out_stride;
    f.job.streams = large && !in_place && is_warm(somewhere, out_stride);
    if (!with_pattern(&f.job))
        return 1;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Room *room = room_for(&f, in_place && !alone ? bytes : 0);
        if (!room) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < batch; i++) {
            int64_t j = mutual && !alone ? mate[i] : i;
            if (j < i || !room)                   /* the first of the two takes care of both */
                continue;
            const char *kept = f.job.x + i * x_stride;         /* sample i, as it was */
            if (in_place && j != i)
                kept = memcpy(room->aside, kept, bytes);
            for (int64_t n = i;; n = j) {
                Sample sample = {.i = n, .own = n == i ? kept : f.job.x + n * x_stride,
                                 .other = partner[n] == i ? kept : f.job.x + partner[n] * x_stride};
                prepare(&f, &sample, room);
                (sample.boxed ? make_boxed : make)(&f, &sample, room);
                if (n == j)
                    break;
            }
        }
        free(room);
        fence();
    }
    free(f.job.pattern);
    return failed;
}
