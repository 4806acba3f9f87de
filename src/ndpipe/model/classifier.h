// Finding the classifier that a backbone ends in.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/model/graph.h"

namespace ndpipe::model {

inline constexpr int64_t kMaxClasses = 65'536;
inline constexpr int64_t kMaxFeatures = int64_t{1} << 20;

// A linear classifier: logits = features · weightᵀ + bias. Refers to tensors of its graph by name.
struct Classifier {
  std::string node;      // description, for messages
  std::string features;  // its data input, before it is quantised: the default cut
  std::string logits;    // its result [N, num_classes], flattened, before softmax
  DataType logits_type = DataType::kFloat;
  int64_t num_classes = 0;
  int64_t feature_size = 0;
  std::string weight;           // a constant that ConstantReader reads
  bool weight_by_class = true;  // [num_classes, feature_size]; else [feature_size, num_classes]
  std::string bias;             // another; empty: none
  float weight_scale = 1;       // Gemm's alpha and beta
  float bias_scale = 1;
};

// Walks back from each graph output in turn, past operators that change no logit's rank or place
// (Softmax, Identity, Cast, a flattening, QuantizeLinear and DequantizeLinear), to Gemm, MatMul
// (+ Add) with constant weights, quantised or not, or a 1×1 Conv on globally pooled features.
// Expects constants folded. kUnimplemented when no output ends so: the message says where the walk
// stopped.
Result<Classifier> FindClassifier(const Graph& graph);

// The values, as fp32, dequantised. kInvalidArgument when one is not finite.
struct ClassifierWeights {
  std::vector<float> weight;  // [num_classes, feature_size]
  std::vector<float> bias;    // [num_classes]
};
Result<ClassifierWeights> ReadClassifier(const Graph& graph, const Classifier& classifier);

}  // namespace ndpipe::model
