// The one contract between every caller of the colour conversions and every implementation of them, and their arithmetic, which
// processors and CUDA devices share.
//
// A frame of 4:2:0 has a luma sample Y a pixel and a pair of chroma samples, Cb and Cr, for every two rows and two columns of
// pixels, rounded up. Its colours are R'G'B' (ITU-R BT.601-7, BT.709-6, BT.2020-2 with non-constant luminance), linear in them:
//
//   to RGB:    yuv = (Y, Cb, Cr of the pixel by interpolation);  rgb[i] = clamp(sum_j by[i][j] (yuv[j] - zero[j]) + shift[i])
//   from RGB:  Y of the pixel's rgb, Cb and Cr of a weighted mean of rgb;  yuv[i] = clamp(sum_j by[i][j] (rgb[j] - zero[j]) +
//              shift[i])
//
// where the clamp of value i is to [low[i], high[i]] and integers are then rounded to the nearest, ties to even.
//
// Filters. Chroma samples lie on a pixel of every second one along an axis ("on"), or halfway between it and the next
// ("between"). MPEG-2's siting, that of film by default, is "on" horizontally and "between" vertically.
// - To RGB they are interpolated by Catmull-Rom splines, whose 2D kernel is the product of two 1D ones. On photographs and text
//   that took the way through 4:2:0 its R'G'B' is 0.3 to 1.3 dB closer to the original than a bilinear one's, while an enlarging
//   network takes what chroma is blurred by for the picture.
// - From RGB they are means with weights 1-2-1 where they lie on a pixel and 1-1 between two, the shortest that pass nothing of
//   the highest frequency. Halfband filters of 7 taps and more are within 0.25 dB of them, above and below.
// Lines beyond the edge are the edge's. All weights are multiples of 1/128, so that for samples of up to 10 bits interpolation is
// exact in float32. Products are never fused with sums (see colors_avx2.cpp and nvcc's --fmad=false), and sums have one order:
// every implementation gives the same bits.
#pragma once

#include "numbers.h"

namespace liif {

// The samples of one component, u8 or u16. Where Cb and Cr take turns in one plane (NV12, P010), v begins one element after u and
// both have step 2.
struct Samples {
  void* data;          // of the first sample
  int64_t row_stride;  // elements from a row to the next, of any sign
  int64_t step;        // elements from a sample to the next: 1 or 2
};

struct ColorParams {
  int64_t height, width;  // pixels, at least 1
  // y [height][width]; u and v, Cb and Cr, [ceil(height / 2)][ceil(width / 2)].
  Samples y, u, v;
  Type sample;     // u8 or u16
  int32_t unused;  // low bits of a stored sample that are not part of its value: 6 of P010; read as any, written as zero
  bool between_y, between_x;  // where chroma lies along each axis: false on the even pixel, true between it and the next

  void* rgb;  // [height][width][3] with these strides in elements; floats that are read are clamped to [0, 1]
  Type rgb_type;
  int64_t rgb_row_stride, rgb_column_stride, rgb_channel_stride;

  // As above. Units are those of a sample's value (0 to 2^bits - 1) and of what is stored as R'G'B' (0 to 255, to 65535, or a
  // float's); `shift` takes in what a network wants, which is v * scale + shift per channel.
  float zero[3];
  float by[3][3];
  float shift[3];
  float low[3], high[3];  // finite; for integers 0 <= low and high <= their largest value
};

namespace {

// What is stored as a half or a bfloat16, apart from u16.
struct F16 {
  uint16_t bits;
};
struct BF16 {
  uint16_t bits;
};

// Weights along an axis. Chroma sample i belongs to pixels 2 i and 2 i + 1; Catmull-Rom's piecewise cubic at a distance of 1/2 is
// 9/16 and -1/16 beyond 1; at 1/4, 3/4, 5/4, 7/4 it is 111, 29, -9 and -3 of 128.
constexpr int kUp = 5;    // of chroma samples i - 2 to i + 2, for either pixel
constexpr int kDown = 3;  // of pixels 2 i - 1 to 2 i + 1
struct ChromaFilter {
  float up[2][kUp];
  float down[kDown];
};
constexpr ChromaFilter kOn{{{0, 0, 1, 0, 0}, {0, -8 / 128.f, 72 / 128.f, 72 / 128.f, -8 / 128.f}}, {0.25f, 0.5f, 0.25f}};
constexpr ChromaFilter kBetween{
    {{-3 / 128.f, 29 / 128.f, 111 / 128.f, -9 / 128.f, 0}, {0, -9 / 128.f, 111 / 128.f, 29 / 128.f, -3 / 128.f}},
    {0, 0.5f, 0.5f}};

inline ChromaFilter chroma_filter(bool between) { return between ? kBetween : kOn; }

template <class T>
LIIF_ANYWHERE inline T bounded(T value, T low, T high) {  // a NaN becomes `low`
  return value > low ? (value < high ? value : high) : low;
}

// Integers below 2^23.
LIIF_ANYWHERE inline float integer_to_float(uint32_t v) {
#ifdef __CUDA_ARCH__
  // Two instructions at full rate; a conversion takes a quarter of it or less.
  return float_of(0x4b000000u | v) - 8388608.0f;
#else
  return static_cast<float>(static_cast<int32_t>(v));
#endif
}

template <class T>
LIIF_ANYWHERE inline float sample_value(T stored, int32_t unused) {
  return integer_to_float(static_cast<uint32_t>(stored) >> unused);
}

// A sample of a whole number, the result of a clamp.
template <class T>
LIIF_ANYWHERE inline T stored_sample(float value, int32_t unused) {
  return static_cast<T>(round_even(value) << unused);
}

// Numbers of R'G'B', as they are stored.
LIIF_ANYWHERE inline float rgb_value(uint8_t v) { return integer_to_float(v); }
LIIF_ANYWHERE inline float rgb_value(uint16_t v) { return integer_to_float(v); }
LIIF_ANYWHERE inline float rgb_value(float v) { return bounded(v, 0.0f, 1.0f); }
LIIF_ANYWHERE inline float rgb_value(F16 v) { return bounded(f16_to_float(v.bits), 0.0f, 1.0f); }
LIIF_ANYWHERE inline float rgb_value(BF16 v) { return bounded(bf16_to_float(v.bits), 0.0f, 1.0f); }

LIIF_ANYWHERE inline void store_rgb_value(float v, uint8_t* to) { *to = static_cast<uint8_t>(round_even(v)); }
LIIF_ANYWHERE inline void store_rgb_value(float v, uint16_t* to) { *to = static_cast<uint16_t>(round_even(v)); }
LIIF_ANYWHERE inline void store_rgb_value(float v, float* to) { *to = v; }
LIIF_ANYWHERE inline void store_rgb_value(float v, F16* to) { to->bits = float_to_f16(v); }
LIIF_ANYWHERE inline void store_rgb_value(float v, BF16* to) { to->bits = float_to_bf16(v); }

LIIF_ANYWHERE inline float upsampled(const float w[kUp], float a, float b, float c, float d, float e) {
  return (((w[0] * a + w[1] * b) + w[2] * c) + w[3] * d) + w[4] * e;
}

LIIF_ANYWHERE inline float downsampled(const float w[kDown], float a, float b, float c) {
  return (w[0] * a + w[1] * b) + w[2] * c;
}

// Value i of a colour after conversion; `a`, `b`, `c` have had `zero` taken off.
LIIF_ANYWHERE inline float converted(const ColorParams& p, int i, float a, float b, float c) {
  const float v = ((p.by[i][0] * a + p.by[i][1] * b) + p.by[i][2] * c) + p.shift[i];
  return bounded(v, p.low[i], p.high[i]);
}

}  // namespace
}  // namespace liif
