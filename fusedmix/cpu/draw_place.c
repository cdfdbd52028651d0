/* FusedAugment's draws: where each image comes from, and its colour. */

/* As recipe.py's Geometry; in_height, in_width: of the images that are given. */
typedef struct {
    int64_t height, width, crop, beyond, box_y, box_x, box_height, box_width;
    int64_t limited, bilinear, flips, turns, color, in_height, in_width;
} Geometry;

typedef struct {
    int64_t y0, x0, height, width;
} Crop;

/* One try at a random resized crop: whether it fits. */
static int resized_crop(const Geometry *g, const float *knob, const Words *w, Crop *crop)
{
    float area = between(w->word[0], knob[PLACE_A], knob[PLACE_B]) * (float)(g->in_height * g->in_width);
    float ratio = aspect_of(w->word[1], knob[PLACE_C], knob[PLACE_D], 0);
    int64_t width = (int64_t)floorf(sqrtf(area * ratio) + 0.5f), height = (int64_t)floorf(sqrtf(area / ratio) + 0.5f);
    if (height <= 0 || height > g->in_height || width <= 0 || width > g->in_width)
        return 0;
    *crop = (Crop){below(w->word[2], g->in_height - height + 1), below(w->word[3], g->in_width - width + 1), height,
                   width};
    return 1;
}

/* Where no try fits: the whole image, a side cut so that the ratio is allowed. */
static Crop central_crop(const Geometry *g, float ratio_low, float ratio_high)
{
    float high = (float)g->in_height, wide = (float)g->in_width, whole = wide / high;
    int64_t height = (int64_t)floorf((whole < ratio_low ? wide / ratio_low : high) + 0.5f);
    int64_t width = (int64_t)floorf((whole > ratio_high ? high * ratio_high : wide) + 0.5f);
    height = clamp(height, 1, g->in_height), width = clamp(width, 1, g->in_width);
    return (Crop){(g->in_height - height) / 2, (g->in_width - width) / 2, height, width};
}

static APART Crop draw_crop(const Geometry *g, const float *knob, uint64_t seed, uint64_t offset, uint32_t index)
{
    Crop crop = {g->box_y, g->box_x, g->box_height, g->box_width};
    if (g->crop == CROP_WINDOW) {
        Words w = words_at(seed, offset, index, STREAM_CROP);
        int64_t padding = (int64_t)knob[PLACE_A];
        crop.y0 = below(w.word[2], at_least_1(g->in_height + 2 * padding - g->height + 1)) - padding;
        crop.x0 = below(w.word[3], at_least_1(g->in_width + 2 * padding - g->width + 1)) - padding;
        crop.height = g->height, crop.width = g->width;
    } else if (g->crop == CROP_RESIZED) {
        int attempt = 0;
        for (; attempt < TRIES; attempt++) {
            Words w = words_at(seed, offset, index, (uint32_t)(STREAM_CROP + STREAM_STEP * attempt));
            if (resized_crop(g, knob, &w, &crop))
                break;
        }
        if (attempt == TRIES)
            crop = central_crop(g, knob[PLACE_C], knob[PLACE_D]);
    }
    return crop;
}

/* Uniform between a pair of knobs. */
static float uniform(uint32_t word, const float *knob)
{
    return between(word, knob[0], knob[1]);
}

/* Inverse of: shear, scale, turn clockwise; all about the centre. inverse: by rows. */
static APART void inverse_affine(float degrees, float shear_x, float shear_y, float scale, float *inverse)
{
    float cosine, sine, cos_x, sin_x, cos_y, sin_y, cos_less, sin_less;
    turned(shear_y, &cos_y, &sin_y), turned(shear_x, &cos_x, &sin_x), turned(degrees, &cosine, &sine);
    turned(degrees - shear_y, &cos_less, &sin_less);
    float tan_x = sin_x / cos_x, across = cos_less / cos_y, down = sin_less / cos_y;
    float a = across, b = -(across * tan_x) - sine, c = down, d = cosine - down * tan_x;
    inverse[0] = d / scale, inverse[1] = -b / scale, inverse[2] = -c / scale, inverse[3] = a / scale;
}

static float whole_translation(uint32_t word, float share, int64_t side)
{
    float most = share * (float)side;
    return floorf(between(word, -most, most) + 0.5f);
}

/* As the reference's `draw_placement` and `draw_coloring`. knobs: the rows of geometry, affine and colour. gray: mean
of each image, or NULL. map: [6, batch], limits: [4, batch], coloring: [5, batch], grayscale last, or NULL. */
void fusedmix_draw_place(const Geometry *g, const float *knobs, uint64_t seed, uint64_t offset, int64_t sample_offset,
                         int64_t batch, const float *gray, float most, float *map, int64_t *limits, float *coloring)
{
    const float *affine = knobs + KNOBS, *color = knobs + 2 * KNOBS;
    float height = (float)g->height, width = (float)g->width;
    for (int64_t i = 0; i < batch; i++) {
        uint32_t index = (uint32_t)(sample_offset + i);
        Crop crop = draw_crop(g, knobs, seed, offset, index);
        Words flip = words_at(seed, offset, index, STREAM_FLIP);
        int flips = g->flips || g->turns, flip_h = flips && unit(flip.word[0]) < knobs[PLACE_FLIP];
        int flip_v = flips && unit(flip.word[1]) < knobs[PLACE_FLIP_V];
        float m[4] = {1, 0, 0, 1}, shift_x = 0, shift_y = 0;
        if (g->turns && unit(flip.word[2]) < affine[AFFINE_P]) {
            Words turn = words_at(seed, offset, index, STREAM_AFFINE);
            Words shear = words_at(seed, offset, index, STREAM_SHEAR);
            float shear_x = uniform(shear.word[0], affine + AFFINE_SHEAR);
            float shear_y = uniform(shear.word[1], affine + AFFINE_SHEAR + 2);
            inverse_affine(uniform(turn.word[0], affine + AFFINE_DEGREES), shear_x, shear_y,
                           uniform(turn.word[1], affine + AFFINE_SCALE), m);
            shift_x = whole_translation(turn.word[2], affine[AFFINE_TRANSLATE], g->width);
            shift_y = whole_translation(turn.word[3], affine[AFFINE_TRANSLATE + 1], g->height);
        }
        float to_x = 0.5f * width + shift_x, to_y = 0.5f * height + shift_y;
        float t_x = 0.5f * width - (m[0] * to_x + m[1] * to_y), t_y = 0.5f * height - (m[2] * to_x + m[3] * to_y);
        if (flip_h)
            m[0] = -m[0], m[1] = -m[1], t_x = width - t_x;
        if (flip_v)
            m[2] = -m[2], m[3] = -m[3], t_y = height - t_y;
        float step_x = (float)crop.width / width, step_y = (float)crop.height / height;
        float drawn[6] = {step_x * m[0], step_x * m[1], (float)crop.x0 + step_x * t_x,
                          step_y * m[2], step_y * m[3], (float)crop.y0 + step_y * t_y};
        int64_t within[4] = {0, 0, g->in_height, g->in_width};
        if (g->limited)
            memcpy(within, (int64_t[]){crop.y0, crop.x0, crop.y0 + crop.height, crop.x0 + crop.width}, sizeof(within));
        for (int k = 0; k < 6; k++)
            map[k * batch + i] = drawn[k];
        for (int k = 0; k < 4; k++)
            limits[k * batch + i] = within[k];
        if (!coloring)
            continue;
        Words w = words_at(seed, offset, index, STREAM_COLOR);
        int here = unit(flip.word[3]) < color[COLOR_P];
        float brightness = here ? uniform(w.word[0], color + COLOR_BRIGHTNESS) : 1, pivot = 0.5f;
        if (gray) {
            pivot = gray[i] * brightness;
            pivot = (pivot < 0 ? 0 : pivot > most ? most : pivot) / most;
        }
        float factor[5] = {brightness, here ? uniform(w.word[1], color + COLOR_CONTRAST) : 1,
                           here ? uniform(w.word[2], color + COLOR_SATURATION) : 1, pivot,
                           unit(w.word[3]) < color[COLOR_GRAYSCALE]};
        for (int k = 0; k < 5; k++)
            coloring[k * batch + i] = factor[k];
    }
}
