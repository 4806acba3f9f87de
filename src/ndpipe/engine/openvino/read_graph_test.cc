// The two ways to a tensor: out of what OpenVINO makes of the whole file, and cut before that.
#include "ndpipe/engine/openvino/read_graph.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <openvino/openvino.hpp>
#include <vector>

#include "ndpipe/engine/body_fixture.h"
#include "ndpipe/model/backbone_graph.h"

namespace ndpipe::engine {
namespace {

std::vector<float> ValuesOf(ov::Core& core, const std::shared_ptr<ov::Model>& graph) {
  graph->reshape(ov::PartialShape{1, 3, 224, 224});
  auto request = core.compile_model(graph, "CPU", ov::hint::inference_precision(ov::element::f32))
                     .create_infer_request();
  auto input = request.get_input_tensor();
  for (size_t i = 0; i < input.get_size(); ++i) {
    input.data<float>()[i] = static_cast<float>(std::sin(0.01 * static_cast<double>(i)));
  }
  request.infer();
  const auto output = request.get_output_tensor();
  const auto* values = output.data<const float>();
  return {values, values + output.get_size()};
}

TEST(ReadGraphTest, BothWaysToACutGiveItsValues) {
  ov::Core core;
  for (const auto* name : {"vit-tiny", "efficientnet-lite0"}) {
    const auto backbone = MakeBackbone(name);
    const auto cuts = model::ListCutNames(model::ReadKeptGraph(backbone.onnx_file).value());
    for (const size_t i : {cuts.size() / 4, cuts.size() / 2, cuts.size() - 2}) {
      SCOPED_TRACE(cuts[i]);
      const auto theirs = ValuesOf(core, ReadUpTo(core, backbone, {cuts[i]}).value());
      const auto ours = ValuesOf(core, ReadBodyOf(core, backbone, cuts[i]).value());
      ASSERT_EQ(theirs.size(), ours.size());
      const auto largest = std::abs(
          *std::ranges::max_element(theirs, {}, [](float value) { return std::abs(value); }));
      ASSERT_GT(largest, 0);
      for (size_t j = 0; j < ours.size(); ++j) {
        ASSERT_NEAR(ours[j], theirs[j], 1e-5 * largest) << j;
      }
    }
  }
}

TEST(ReadGraphTest, SizesComeInTheOrderOfTheNames) {
  ov::Core core;
  const auto backbone = MakeBackbone("vit-tiny");
  const auto cuts = model::ListCutNames(model::ReadKeptGraph(backbone.onnx_file).value());
  const auto both = ReadUpTo(core, backbone, {backbone.cut, cuts[0]}).value();
  const auto shapes = InferShapes(both, 3).value();
  ASSERT_EQ(shapes.size(), 2U);
  EXPECT_EQ(shapes[0].dims, (std::vector<int64_t>{3, backbone.feature_size}));
  EXPECT_EQ(shapes[0].type, model::DataType::kFloat);
  EXPECT_EQ(shapes[1].dims[0], 3);
  EXPECT_EQ(InferShapes(both, 1).value()[0].dims, (std::vector<int64_t>{1, backbone.feature_size}));
}

}  // namespace
}  // namespace ndpipe::engine
