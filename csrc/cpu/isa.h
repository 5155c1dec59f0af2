// The implementations of the decoder, the resampler, the convolution and the colour conversions, one per instruction set, and
// what they share. Plain code serves all where it is fast enough.
#pragma once

#include <cstdint>

#include "../colors.h"
#include "../convolve.h"
#include "../decode.h"
#include "../normalise.h"
#include "../resample.h"
#include "pixels.h"

namespace liif {

// Output pixels decoded together: their neighbours are the rows of the hidden layers' matrix products. 48 pixels of 4 neighbours
// are 192 rows, a multiple of every register block.
constexpr int kTilePixels = 48;
constexpr int kTileRows = kTilePixels * kMaxSides * kMaxSides;

// Per thread: two sets of activations, the row terms of the first layer, and sums of the last.
struct Scratch {
  alignas(64) float a[kTileRows * kMaxWidth];
  alignas(64) float b[kTileRows * kMaxWidth];
  alignas(64) float row_term[kMaxSides * kMaxWidth];
  alignas(64) float steps[kTileRows];  // of rows in int8
  alignas(64) float sums[(kTilePixels + 31) / 32 * 32 * 3 * kPanel];
};

// Decodes pixels [begin, end) in row-major order.
using DecodeRange = void (*)(const DecodeParams&, int64_t begin, int64_t end, Scratch&);

void decode_scalar(const DecodeParams&, int64_t begin, int64_t end, Scratch&);
void decode_avx2(const DecodeParams&, int64_t begin, int64_t end, Scratch&);
void decode_avxvnni(const DecodeParams&, int64_t begin, int64_t end, Scratch&);
void decode_avx512(const DecodeParams&, int64_t begin, int64_t end, Scratch&);
void decode_avx512vnni(const DecodeParams&, int64_t begin, int64_t end, Scratch&);
void decode_avx512bf16(const DecodeParams&, int64_t begin, int64_t end, Scratch&);
void decode_neon(const DecodeParams&, int64_t begin, int64_t end, Scratch&);
void decode_neonbf16(const DecodeParams&, int64_t begin, int64_t end, Scratch&);
void decode_amx(const DecodeParams&, int64_t begin, int64_t end, Scratch&);

constexpr int kStrip = 256;          // fine columns of a strip: the rows that a sum reads stay in the first cache
constexpr int kStripOutputs = 1024;  // output columns of a strip at most
constexpr int kRingCells = 3;        // rows of cells that kTaps neighbouring fine rows touch at most

// Per thread: a strip of fine rows by channel, as a ring, their sums for two output rows, and the taps of its columns by vectors.
// Vectors may read past the end of a sum, and use nothing of it.
struct Strip {
  alignas(64) float ring[kRingCells * kFactor][3][kStrip];
  alignas(64) float sum[2][3][kStrip];
  alignas(64) float taps[kStripOutputs * kTaps];
};

// Resamples rows [begin, end) of a grid, or points [begin, end) of a list.
using ResampleRange = void (*)(const ResampleParams&, int64_t begin, int64_t end, Strip&);

void resample_scalar(const ResampleParams&, int64_t begin, int64_t end, Strip&);
void resample_avx2(const ResampleParams&, int64_t begin, int64_t end, Strip&);
void resample_avx512(const ResampleParams&, int64_t begin, int64_t end, Strip&);
void resample_neon(const ResampleParams&, int64_t begin, int64_t end, Strip&);

// Convolves output rows [begin, end) without `winograd`.
using ConvolveRange = void (*)(const ConvolveParams&, int64_t begin, int64_t end);

void convolve_scalar(const ConvolveParams&, int64_t begin, int64_t end);
void convolve_avx2(const ConvolveParams&, int64_t begin, int64_t end);
void convolve_avx512(const ConvolveParams&, int64_t begin, int64_t end);
void convolve_avx512bf16(const ConvolveParams&, int64_t begin, int64_t end);
void convolve_neon(const ConvolveParams&, int64_t begin, int64_t end);
void convolve_neonbf16(const ConvolveParams&, int64_t begin, int64_t end);
void convolve_amx(const ConvolveParams&, int64_t begin, int64_t end);

// Tiles that F(4x4, 3x3) works on together at most, and what it makes of them: in (of the type of the weights) and out, both
// [kWinogradTiles / kWinogradRun][channels / kPanel][36][kWinogradRun][kPanel] and a pad after each of the 36, which keeps what
// is written together from falling into the same lines of the first cache; `winograd_size` floats each, which were zero once.
constexpr int kWinogradTiles = 24, kWinogradRun = 12;
constexpr int kWinogradPlace = kWinogradRun * kPanel + 16;
struct WinogradScratch {
  float *in, *out;
};

// Convolves tiles [begin, end) by `winograd`.
using WinogradRange = void (*)(const ConvolveParams&, int64_t begin, int64_t end, const WinogradScratch&);

void winograd_scalar(const ConvolveParams&, int64_t begin, int64_t end, const WinogradScratch&);
void winograd_avx2(const ConvolveParams&, int64_t begin, int64_t end, const WinogradScratch&);
void winograd_avx512(const ConvolveParams&, int64_t begin, int64_t end, const WinogradScratch&);
void winograd_neon(const ConvolveParams&, int64_t begin, int64_t end, const WinogradScratch&);

// The same by weights of bf16.
void winograd_avx512bf16(const ConvolveParams&, int64_t begin, int64_t end, const WinogradScratch&);
void winograd_neonbf16(const ConvolveParams&, int64_t begin, int64_t end, const WinogradScratch&);

// Adds what tiles [begin, end) give to `sum`, of the layout of an f32 `ConvolveParams::winograd`.
using WinogradGradientRange = void (*)(const ConvolveGradientParams&, int64_t begin, int64_t end, const WinogradScratch&,
                                       float* sum);

void winograd_gradient_scalar(const ConvolveGradientParams&, int64_t begin, int64_t end, const WinogradScratch&, float* sum);
void winograd_gradient_avx2(const ConvolveGradientParams&, int64_t begin, int64_t end, const WinogradScratch&, float* sum);
void winograd_gradient_avx512(const ConvolveGradientParams&, int64_t begin, int64_t end, const WinogradScratch&, float* sum);
void winograd_gradient_neon(const ConvolveGradientParams&, int64_t begin, int64_t end, const WinogradScratch&, float* sum);

// Normalises rows [begin, end) of a picture.
void normalise(const NormaliseParams&, int64_t begin, int64_t end);

// Converts chroma rows [begin, end) and the pixel rows that share them.
using ConvertRange = void (*)(const ColorParams&, int64_t begin, int64_t end);

void to_rgb_scalar(const ColorParams&, int64_t begin, int64_t end);
void to_rgb_avx2(const ColorParams&, int64_t begin, int64_t end);
void from_rgb_scalar(const ColorParams&, int64_t begin, int64_t end);
void from_rgb_avx2(const ColorParams&, int64_t begin, int64_t end);

// As in pixels.h, what follows is compiled once per instruction set and never shared.
namespace {

inline int64_t winograd_size(int channels) {
  return int64_t{kWinogradTiles / kWinogradRun} * (channels / kPanel) * 36 * kWinogradPlace;
}

// Of one picture, and of all.
inline int64_t tiles_across(const PixelGrid& g) { return (g.columns + 3) / 4; }
inline int64_t tiles_down(const PixelGrid& g) { return ((g.picture_rows ? g.picture_rows : g.rows) + 3) / 4; }
inline int64_t tiles_in(const PixelGrid& g) {
  return (g.picture_rows ? g.rows / g.picture_rows : 1) * tiles_down(g) * tiles_across(g);
}

// A tile of output pixels walks the output in row-major order and may cross rows.
struct Cursor {
  int64_t row, column;
  const int64_t columns;
  const bool paired;
  Cursor(const DecodeParams& p, int64_t pixel)
      : row(p.out.paired ? pixel : pixel / p.x.size),
        column(p.out.paired ? pixel : pixel % p.x.size),
        columns(p.x.size),
        paired(p.out.paired) {}
  void next() {
    if (paired) {
      ++row, ++column;
    } else if (++column == columns) {
      column = 0, ++row;
    }
  }
};

inline void store_pixel(const DecodeParams& p, int64_t row, int64_t column, const float sum[3]) {
  const float rgb[3] = {sum[0] + p.last_bias[0], sum[1] + p.last_bias[1], sum[2] + p.last_bias[2]};
  store_rgb(p.out, row, column, rgb);
}

}  // namespace
}  // namespace liif
