// The one contract between every caller of the decoder and every implementation of it.
//
// LIIF's decoder (Chen et al., CVPR 2021, eq. 2-4) with its first layer already applied to the features ("projected"):
//
//   h_s = relu(z[cell_s] + first + first_y * offset_y + first_x * offset_x)      for each neighbouring cell s
//   h_s = relu(W_l h_s + b_l)                                                    for each further hidden layer l
//   out = scale * (W_last (sum_s weight_s h_s) + b_last) + shift                 blended before the last, linear layer
//
// Queries are separable: output row i reads entry i of the y table and output column j entry j of the x table.
// Native code knows no tensors: plain pointers, sizes, strides.
#pragma once

#include <cstdint>

#include "pixels.h"

namespace liif {

constexpr int kPanel = 16;      // columns of a packed weight panel; every width is a multiple of it
constexpr int kMaxWidth = 256;  // widest hidden layer
constexpr int kMaxSides = 2;    // neighbouring cells per axis: 2 with local ensemble, 1 without

// Where each output row (or column) looks: [sides][size], side-major, contiguous.
struct AxisTable {
  const int32_t* index;  // cell of z, 0 <= index < cells along this axis
  const float* offset;   // query centre minus cell centre, in half cells (the paper's relative coordinate)
  const float* weight;   // share of this side; the shares of an axis sum to one
  int64_t size;          // entries per side
};

// A hidden layer after the first: out = relu(W in + b).
//
// Of i8 it reads q = round(in / step), of 0 to 255 with a step for each row, its largest value / 255, and makes
// relu(step multiplier (W q) + b); NaN becomes some number.
struct HiddenLayer {
  // Packed panels of 16 outputs: f32 [out/16][in][16], bf16 [out/16][in/2][16][2], i8 [out/16][in/4][16][4], or in 16 bits as
  // bf16 for what has no products of bytes.
  const void* weight;
  const float* multiplier;  // [out], of i8 alone
  const float* bias;        // [out]
  int32_t in, out;          // multiples of 16, at most 256
};

struct DecodeParams {
  const void* z;         // [rows][columns][width] of `type`, channels last: the projected features, bias included
  Type type;             // f32 or bf16: storage of z
  Type products;         // of hidden layers: `type`, which activations have too and sums in f32, or i8 with whole sums
  int32_t width;         // channels of z
  int64_t z_row_stride;  // elements from one row of z to the next
  int32_t sides;         // 1 or 2: cells looked at per axis
  AxisTable y, x;

  const float* first;    // [width] what is constant in the first layer: the cell term
  const float* first_y;  // [width] weight of the y offset
  const float* first_x;  // [width] weight of the x offset
  const HiddenLayer* hidden;
  int32_t hidden_count;  // hidden layers after the first, may be 0

  const float* last;       // [3][width of the last hidden layer]
  const float* last_bias;  // [3]
  Pixels out;
};

}  // namespace liif
