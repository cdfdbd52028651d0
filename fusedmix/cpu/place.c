/* FusedAugment's images: cropped, flipped, turned and coloured, as the reference's `sampled` and `colored`. */

typedef struct {
    const char *x;
    char *out;
    int in_type, out_type;
    int64_t x_stride, out_stride;                 /* bytes from one sample to the next */
    int64_t channels, in_height, in_width, height, width;
    int in_last, out_last;                        /* whether the channels of a pixel lie together */
    const float *map, *coloring, *fill, *norm;    /* of each image of x: [6], and [5] or NULL; norm: as in a Job */
    const int64_t *limits;                        /* of each image of x: [4] */
    int beyond, bilinear, fades, steps;           /* steps: whether places lie whole 2**-TAP_BITS between pixels */
    float most;
} Placing;

/* Which two pixels of an axis a place lies between. */
typedef struct {
    int32_t first, next;
    float weight, cover;                          /* of the next; how much of the place the image covers */
    char there, next_there;                       /* or beyond the image, where it is filled */
} Tap;

/* What a thread works with. */
typedef struct {
    Tap *column;                                  /* of each pixel of a row, where nothing turns */
    float *value, *row[2], *line;                 /* [channels, width]: two rows of the source, weighed across */
    int64_t held[2];                              /* their names, see `name_of`; or -1 */
    int64_t first, end;                           /* pixels of a row that show neighbours in their order, forwards or */
    int direction;                                /* backwards, and the others what lies beyond; 0: not so */
} Desk;

static int32_t fold(const Placing *p, int64_t index, int64_t low, int64_t high, int64_t side, char *there)
{
    *there = p->beyond != BEYOND_FILL || p->fades || (index >= low && index < high);
    if (p->beyond == BEYOND_REFLECT) {
        index = index < low ? 2 * low - index : index;
        index = index >= high ? 2 * (high - 1) - index : index;
    }
    index = index > low ? index : low;
    return (int32_t)clamp(index < high - 1 ? index : high - 1, 0, side - 1);
}

static APART Tap tap_at(const Placing *p, float place, int64_t low, int64_t high, int64_t side)
{
    Tap tap = {.weight = 0, .cover = 1};
    if (p->bilinear)
        place -= 0.5f;
    if (p->fades) {
        float inner = place > (float)low ? place : (float)low;
        inner = inner < (float)(high - 1) ? inner : (float)(high - 1);
        tap.cover = 1 - fabsf(place - inner), place = inner;
        tap.cover = tap.cover > 0 ? tap.cover : 0;
    }
    float before = floorf(place);
    if (p->bilinear)
        tap.weight = p->steps ? rintf((place - before) * (1 << TAP_BITS)) / (1 << TAP_BITS) : place - before;
    int64_t index = fabsf(before) < 1e9f ? (int64_t)before : 0;        /* plans come from anywhere */
    tap.first = fold(p, index, low, high, side, &tap.there);
    tap.next = fold(p, index + 1, low, high, side, &tap.next_there);
    return tap;
}

static inline float between_rows(const Placing *p, float upper, float lower, float weight)
{
    if (p->steps)                                 /* in [256, 512) a float32 holds whole steps, to which it rounds */
        return fmaf(weight, lower - upper, upper + (1 << (23 - TAP_BITS))) - (1 << (23 - TAP_BITS));
    return upper + weight * (lower - upper);
}

static inline float faded(const Placing *p, float value, float cover, float fill)
{
    return p->fades ? value + (1 - cover) * (fill - value) : value;
}

/* Whether rows are windows of the source's: what most crops are. */
static APART void find_window(const Placing *p, Desk *desk)
{
    const Tap *column = desk->column;
    int64_t first = 0, end = p->width;
    while (first < end && !column[first].there)
        first++;
    while (end > first && !column[end - 1].there)
        end--;
    desk->first = first, desk->end = end;
    desk->direction = p->bilinear || end - first < 2 ? 0 : column[first + 1].first - column[first].first;
    for (int64_t x = first + 1; x < end && desk->direction; x++)
        if (!column[x].there || column[x].first - column[x - 1].first != desk->direction)
            desk->direction = 0;
}

/* A channel of a row of the source that shows a window of it. */
static inline void copy_window(const Placing *p, const Desk *desk, int type, const char *from, float fill, float *to)
{
    int64_t first = desk->first, end = desk->end, start = desk->column[first].first;
    for (int64_t x = 0; x < first; x++)
        to[x] = fill;
    for (int64_t x = end; x < p->width; x++)
        to[x] = fill;
    if (desk->direction > 0)
        for (int64_t x = first; x < end; x++)
            to[x] = element(type, from, start + x - first);
    else
        for (int64_t x = first; x < end; x++)
            to[x] = element(type, from, start - (x - first));
}

/* A channel of a row of the source, weighed across. */
static inline void weigh_row(const Placing *p, const Desk *desk, int type, const char *from, int64_t step, int there,
                             float fill, float *to)
{
    const Tap *column = desk->column;
    if (there && step == 1 && (desk->direction == 1 || desk->direction == -1)) {
        copy_window(p, desk, type, from, fill, to);
        return;
    }
    for (int64_t x = 0; x < p->width; x++)
        to[x] = there && column[x].there ? element(type, from, column[x].first * step) : fill;
    for (int64_t x = 0; p->bilinear && x < p->width; x++) {
        float b = there && column[x].next_there ? element(type, from, column[x].next * step) : fill;
        to[x] += column[x].weight * (b - to[x]);
    }
}

static int64_t name_of(int64_t row, int there)
{
    return 2 * row + there;
}

/* The row `row` of an image, weighed across, of all channels. other: the name of that which is needed beside it. */
static APART const float *source_row(const Placing *p, Desk *desk, const char *image, int64_t row, int there,
                                     int64_t other)
{
    int64_t name = name_of(row, there), step = p->in_last ? p->channels : 1;
    for (int k = 0; k < 2; k++)
        if (desk->held[k] == name)
            return desk->row[k];
    int k = desk->held[0] == other;
    desk->held[k] = name;
    for (int64_t c = 0; c < p->channels; c++) {
        int64_t at = p->in_last ? row * p->in_width * step + c : (c * p->in_height + row) * p->in_width;
        const char *from = image + at * SIZES[p->in_type];
        float *to = desk->row[k] + c * p->width, fill = p->fill[c];
        if (p->in_type == UINT8)
            weigh_row(p, desk, UINT8, from, step, there, fill, to);
        else
            weigh_row(p, desk, p->in_type, from, step, there, fill, to);
    }
    return desk->row[k];
}

/* A row of the result where rows stay rows. */
static APART const float *straight_row(const Placing *p, Desk *desk, const char *image, Tap tap)
{
    int64_t n = p->channels * p->width, name = name_of(tap.first, tap.there);
    const float *upper = source_row(p, desk, image, tap.first, tap.there, name_of(tap.next, tap.next_there));
    if (!p->bilinear)
        return upper;
    const float *lower = source_row(p, desk, image, tap.next, tap.next_there, name);
    for (int64_t k = 0; k < n; k++)
        desk->value[k] = between_rows(p, upper[k], lower[k], tap.weight);
    for (int64_t c = 0; p->fades && c < p->channels; c++)
        for (int64_t x = 0; x < p->width; x++) {
            float *value = desk->value + c * p->width + x;
            *value = faded(p, *value, tap.cover * desk->column[x].cover, p->fill[c]);
        }
    return desk->value;
}

/* A row of the result where the map turns. */
static APART const float *turned_row(const Placing *p, Desk *desk, const char *image, const float *m,
                                     const int64_t *limits, int64_t y)
{
    int64_t step = p->in_last ? p->channels : 1, plane = p->in_last ? 1 : p->in_height * p->in_width;
    float down = (float)y + 0.5f;
    for (int64_t x = 0; x < p->width; x++) {
        float across = (float)x + 0.5f;
        Tap v = tap_at(p, (m[4] * down + m[5]) + m[3] * across, limits[0], limits[2], p->in_height);
        Tap u = tap_at(p, (m[1] * down + m[2]) + m[0] * across, limits[1], limits[3], p->in_width);
        int64_t first = v.first * p->in_width, next = v.next * p->in_width;
        for (int64_t c = 0; c < p->channels; c++) {
            const char *from = image + c * plane * SIZES[p->in_type];
            float fill = p->fill[c];
            float a = v.there && u.there ? element(p->in_type, from, (first + u.first) * step) : fill;
            if (p->bilinear) {
                float b = v.there && u.next_there ? element(p->in_type, from, (first + u.next) * step) : fill;
                float d = v.next_there && u.there ? element(p->in_type, from, (next + u.first) * step) : fill;
                float e = v.next_there && u.next_there ? element(p->in_type, from, (next + u.next) * step) : fill;
                float upper = a + u.weight * (b - a), lower = d + u.weight * (e - d);
                a = faded(p, between_rows(p, upper, lower, v.weight), v.cover * u.cover, fill);
            }
            desk->value[c * p->width + x] = a;
        }
    }
    return desk->value;
}

static inline float between_0_and_1(float value)
{
    return value < 0 ? 0 : value > 1 ? 1 : value;
}

/* A row in colour, in shares of white, at `to`, which may be `from`. factor: brightness, contrast, saturation, pivot,
whether gray. */
static APART const float *color_row(const Placing *p, const float *factor, const float *from, float *to)
{
    static const float weight[] = GRAY;
    int64_t n = p->width;
    float contrast = factor[1], rise = (1 - contrast) * factor[3], base = p->most == 255 ? BYTE_STEPS : 0;
    int steep = contrast > 1;   /* is joined with the brightness, else with the saturation */
    float scale = factor[0] / p->most * (steep ? contrast : 1), shift = (steep ? rise : 0) - scale * base;
    float saturation = factor[4] ? 0 : factor[2], others = 1 - saturation;
    float own = steep ? saturation : saturation * contrast, gray = steep ? others : others * contrast;
    float start = steep ? 0 : rise * (saturation + others * (float)WHITE_GRAY);
    float red = gray * weight[0], green = gray * weight[1], blue = gray * weight[2];
    for (int64_t x = 0; x < n; x++) {
        float r = between_0_and_1(fmaf(from[x] + base, scale, shift));
        float g = between_0_and_1(fmaf(from[n + x] + base, scale, shift));
        float b = between_0_and_1(fmaf(from[2 * n + x] + base, scale, shift));
        float rest = fmaf(r, red, fmaf(g, green, fmaf(b, blue, start)));
        to[x] = between_0_and_1(fmaf(r, own, rest));
        to[n + x] = between_0_and_1(fmaf(g, own, rest));
        to[2 * n + x] = between_0_and_1(fmaf(b, own, rest));
    }
    return to;
}

/* Normalises, rounds and writes a row. */
static APART void write_row(const Placing *p, const Desk *desk, const float *value, char *out, int64_t y)
{
    int64_t size = SIZES[p->out_type], n = p->width, step = p->out_last ? p->channels : 1;
    for (int64_t c = 0; c < p->channels; c++, value += n) {
        char *to = p->out_last ? out + y * n * step * size : out + (c * p->height + y) * n * size;
        float *line = p->out_type == FLOAT32 ? (float *)to : desk->line;
        line += p->out_last ? c : 0;
        float inverse_std = p->norm ? p->norm[p->channels + c] : 1, shift = p->norm ? -(p->norm[c] * inverse_std) : 0;
        for (int64_t x = 0; x < n; x++)
            line[x * step] = fmaf(value[x], inverse_std, shift);
        if (!p->out_last)
            store(p->out_type, to, n, line);
        else if (c + 1 == step)
            store(p->out_type, to, n * step, line - c);
    }
}

static APART void place(const Placing *p, Desk *desk, int64_t member, char *out)
{
    const char *image = p->x + member * p->x_stride;
    const float *m = p->map + 6 * member;
    const int64_t *limits = p->limits + 4 * member;
    int straight = m[1] == 0 && m[3] == 0;
    desk->held[0] = desk->held[1] = -1;
    for (int64_t x = 0; straight && x < p->width; x++)
        desk->column[x] = tap_at(p, m[0] * ((float)x + 0.5f) + m[2], limits[1], limits[3], p->in_width);
    if (straight)
        find_window(p, desk);
    for (int64_t y = 0; y < p->height; y++) {
        const float *value;
        if (straight)
            value = straight_row(p, desk, image,
                                 tap_at(p, m[4] * ((float)y + 0.5f) + m[5], limits[0], limits[2], p->in_height));
        else
            value = turned_row(p, desk, image, m, limits, y);
        if (p->coloring)
            value = color_row(p, p->coloring + 5 * member, value, desk->value);
        write_row(p, desk, value, out, y);
    }
}

static Desk *desk_for(const Placing *p)
{
    int64_t n = p->channels * p->width;
    Desk *desk = malloc(sizeof(Desk) + p->width * sizeof(Tap) + 4 * n * sizeof(float));
    if (desk) {
        desk->column = (Tap *)(desk + 1);
        desk->value = (float *)(desk->column + p->width);
        desk->row[0] = desk->value + n, desk->row[1] = desk->value + 2 * n, desk->line = desk->value + 3 * n;
    }
    return desk;
}

/* Places the images `member`, `count` of them, of x in `out`, one after the other. Returns as `fusedmix_mix`. */
int fusedmix_place(const Placing *p, const int64_t *member, int64_t count, int threads)
{
    int failed = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Desk *desk = desk_for(p);
        if (!desk) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t k = 0; k < count; k++)
            if (desk)
                place(p, desk, member[k], p->out + k * p->out_stride);
        free(desk);
    }
    return failed;
}
