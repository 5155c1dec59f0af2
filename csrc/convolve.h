// The contract of the convolution that the encoder is made of, and of the gradient of its weights.
//
//   out[y][x] = f(bias + sum over the 3x3 neighbours (dy, dx) of weight[dy][dx] in[y + dy][x + dx] + skip_weight skip[y][x] +
//                 add[y][x])
//
// where f is a ReLU or nothing, and skip and add are left out where they are null. Pictures are channels last.
#pragma once

#include "decode.h"

namespace liif {

// Outputs. F(4x4, 3x3) makes them in tiles of four by four, whose lines begin anew in each picture.
struct PixelGrid {
  int64_t rows, columns;
  // 0: one picture, of whose input one pixel beyond each border is read. Else: pictures of so many rows below each other, with
  // zeros around each; F(4x4, 3x3) alone can have them.
  int64_t picture_rows;
};

struct ConvolveParams {
  Type type;  // f32 or bf16: storage of weights and pictures but the sums, which are f32
  PixelGrid grid;
  int64_t first_row;  // of the grid, in the picture that a chain of convolutions is of
  int32_t in, out;    // channels; `in` is even, `out` a multiple of 16
  int32_t kernel;     // 3 or 1

  // Pictures point to the first pixel of the output's grid; a kernel of 3 also reads one pixel beyond each border.
  const void* input;
  int64_t input_row_stride;  // elements
  const void* skip;          // `kSkip` channels, or null
  int64_t skip_row_stride;
  // Packed panels of 16 outputs: f32 [out/16][K][16], bf16 [out/16][K/2][16][2]; K are the inputs in the order row, column,
  // channel, and then the channels of `skip`, if any. Null where `winograd` is not.
  const void* weight;
  // Null, or the weights for F(4x4, 3x3); kernel 3, `in` a multiple of 16. Packed panels of 16 outputs for each of the 36
  // places of a tile, f32 [36][out/16][in][16] whatever the pictures are, or bf16 [36][out/16][in/2][16][2] of bf16 pictures.
  const void* winograd;
  Type winograd_type;
  const float* winograd_skip;  // those of `skip`, [kSkip][out], or null
  const float* bias;           // [out]
  bool relu;
  const void* add;  // as `output`, or null; may be `output` itself
  void* output;
  int64_t output_row_stride;
};

// What a loss's gradient at the outputs gives at the weights of F(4x4, 3x3): sums over all tiles.
struct ConvolveGradientParams {
  Type type;           // f32 or bf16: storage of both pictures; all sums are f32
  PixelGrid grid;      // of whole pictures
  int32_t in, out;     // channels, multiples of 16
  const void* input;   // [rows][columns][in]
  const void* output;  // the gradient, [rows][columns][out]
};

constexpr int kSkip = 4;  // channels of the image: three colours and a zero

}  // namespace liif
