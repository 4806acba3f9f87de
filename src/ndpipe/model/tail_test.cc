// Tails and manifests: what is written is read back, and nothing else is.
#include "ndpipe/model/tail.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iterator>
#include <limits>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/model/delta_weights.h"
#include "ndpipe/model/manifest.h"
#include "ndpipe/model/test_graphs.h"

namespace ndpipe::model {
namespace {

using testing::HasSubstr;

TailWeights SmallTail() {
  return {.backbone = Sha256::Of("backbone"),
          .cut = "features",
          .num_classes = 2,
          .feature_size = 3,
          .weight = {1, 2, 3, 4, 5, 6},
          .bias = {-1, 0.5F}};
}

// The bytes of a tail with another header.
std::vector<uint8_t> WithHeader(std::string header) {
  const auto tail = SerializeTail(SmallTail());
  ByteReader reader(tail);
  const uint64_t length = *reader.Read<uint64_t>();
  const auto ignored = reader.ReadBytes(length);
  EXPECT_TRUE(ignored);
  header.append((8 - header.size() % 8) % 8, ' ');
  ByteWriter writer;
  writer.Write(static_cast<uint64_t>(header.size()));
  writer.WriteBytes(AsBytes(header));
  writer.WriteBytes(*reader.ReadBytes(reader.remaining()));
  return writer.Take();
}

std::string HeaderOf(const std::vector<uint8_t>& tail) {
  ByteReader reader(tail);
  const uint64_t length = *reader.Read<uint64_t>();
  return std::string(AsText(*reader.ReadBytes(length)));
}

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

TEST(TailTest, IsReadBack) {
  const auto tail = SmallTail();
  const auto bytes = SerializeTail(tail);
  EXPECT_EQ(bytes, SerializeTail(tail));
  const auto read = ParseTail(bytes);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->backbone, tail.backbone);
  EXPECT_EQ(read->cut, tail.cut);
  EXPECT_EQ(read->num_classes, 2);
  EXPECT_EQ(read->feature_size, 3);
  EXPECT_EQ(read->weight, tail.weight);
  EXPECT_EQ(read->bias, tail.bias);
}

TailWeights DeepTail() {
  TailWeights tail = SmallTail();
  tail.parameters = {{"classifier.weight", {3}, {1, 2, 3}},  // of the backbone, not the classifier
                     {"gain", {}, {0.25F}},
                     {"layer4.\"é\"", {2, 1, 2}, {-0.0F, 1e-40F, 3e38F, -7}}};
  return tail;
}

void ExpectSame(const TailWeights& a, const TailWeights& b) {
  EXPECT_EQ(a.backbone, b.backbone);
  EXPECT_EQ(a.cut, b.cut);
  EXPECT_EQ(a.num_classes, b.num_classes);
  EXPECT_EQ(a.feature_size, b.feature_size);
  EXPECT_TRUE(SameBits(a.weight, b.weight));
  EXPECT_TRUE(SameBits(a.bias, b.bias));
  ASSERT_EQ(a.parameters.size(), b.parameters.size());
  for (size_t i = 0; i < a.parameters.size(); ++i) {
    EXPECT_EQ(a.parameters[i].name, b.parameters[i].name);
    EXPECT_EQ(a.parameters[i].shape, b.parameters[i].shape);
    EXPECT_TRUE(SameBits(a.parameters[i].values, b.parameters[i].values));
  }
}

TEST(TailTest, ADeepOneIsReadBack) {
  const auto tail = DeepTail();
  ASSERT_TRUE(CheckTail(tail));
  const auto bytes = SerializeTail(tail);
  const auto read = ParseTail(bytes);
  ASSERT_TRUE(read) << read.error().message;
  ExpectSame(*read, tail);
  EXPECT_EQ(SerializeTail(*read), bytes);
  EXPECT_THAT(HeaderOf(bytes), HasSubstr("ndpipe-tail-2"));
}

TEST(TailTest, BecomesWeightsAndComesBack) {
  for (const auto& tail : {SmallTail(), DeepTail()}) {
    const Weights weights = WeightsOf(tail);
    EXPECT_EQ(SerializeWeights(weights), SerializeTail(tail));
    EXPECT_EQ(HashWeights(weights), Sha256::Of(SerializeTail(tail)));
    const auto back = TailOf(weights);
    ASSERT_TRUE(back) << back.error().message;
    ExpectSame(*back, tail);
  }
}

// Edits of a tail's weights, each of which makes them no tail's.
TEST(TailTest, OnlyATailsWeightsBecomeOne) {
  using Edit = void (*)(Weights&);
  const Edit edits[] = {
      [](Weights& w) { w.tensors.erase(w.tensors.begin() + 2, w.tensors.end()); },  // format 2
      [](Weights& w) { w.metadata["format"] = "ndpipe-tail-1"; },
      [](Weights& w) { w.metadata["format"] = "ndpipe-tail-3"; },
      [](Weights& w) { w.metadata["more"] = "text"; },
      [](Weights& w) { w.metadata.erase("cut"); },
      [](Weights& w) { w.metadata["cut"] = "a\nb"; },
      [](Weights& w) { w.metadata["backbone"] = std::string(64, 'A'); },
      [](Weights& w) { w.metadata.clear(); },
      [](Weights& w) { w.tensors.clear(); },
      [](Weights& w) { w.tensors.pop_back(), std::swap(w.tensors[0], w.tensors[1]); },
      [](Weights& w) { std::swap(w.tensors[2], w.tensors[3]); },
      [](Weights& w) { w.tensors[3].name = w.tensors[2].name; },
      [](Weights& w) { w.tensors[2].name = "backbone."; },
      [](Weights& w) { w.tensors[2].name = "gain"; },
      [](Weights& w) { w.tensors[2].name += std::string(2000, 'x'); },
      [](Weights& w) { w.tensors[4].values[2] = std::numeric_limits<float>::infinity(); },
      [](Weights& w) { w.tensors[0].values[2] = std::numeric_limits<float>::quiet_NaN(); },
      [](Weights& w) { w.tensors[0].shape = {3, 2}; },
      [](Weights& w) { w.tensors[0].shape = {6}; },
      [](Weights& w) { w.tensors[0].values.pop_back(); },
      [](Weights& w) { w.tensors[1].shape = {2, 1}; },
      [](Weights& w) { w.tensors[4].shape = {5}; },
      [](Weights& w) { w.tensors[4].shape = {-2, -2}; },
  };
  for (size_t i = 0; i < std::size(edits); ++i) {
    Weights weights = WeightsOf(DeepTail());
    edits[i](weights);
    const auto tail = TailOf(std::move(weights));
    ASSERT_FALSE(tail) << "edit " << i;
    EXPECT_TRUE(tail.error().code == ErrorCode::kDataLoss ||
                tail.error().code == ErrorCode::kInvalidArgument)
        << tail.error().message;
  }
}

TEST(TailTest, HasAFixedFormat) {
  EXPECT_EQ(Sha256::Of(SerializeTail(SmallTail())).Hex(),
            "287be692c2c3f288ddc59118a660a1a040b90876c6134f54cb4beba316c105cb");
  EXPECT_EQ(SerializeTail(SmallTail()).size() % 8, 0U);
}

TEST(TailTest, RefusesAnyOtherHeader) {
  const std::string header = HeaderOf(SerializeTail(SmallTail()));
  EXPECT_TRUE(ParseTail(WithHeader(header)));
  const std::pair<std::string, std::string> edits[] = {
      {"ndpipe-tail-1", "ndpipe-tail-2"},
      {"[2,3]", "[3,2]"},
      {"[2,3]", "[2,3,1]"},
      {"[2,3]", "[-2,3]"},
      {"[2,3]", "[2,3000000]"},
      {"[2,3]", "[70000,3]"},
      {"[2,3]", "[4294967296,4294967296]"},
      {"[2,3]", "[2.0,3]"},
      {"[0,24]", "[0,2400000]"},
      {"[24,32]", "[0,8]"},
      {"F32", "F16"},
      {"\"features\"", "\"fea\\ntures\""},
      {"\"features\"", "7"},
      {"classifier.bias", "classifier.bios"},
      {"{", "{\"extra\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"},
      {"\"backbone\":\"" + SmallTail().backbone.Hex(), "\"backbone\":\"" + std::string(64, 'A')},
      {"{", "["},
      {"{", " {"},
  };
  for (const auto& [from, to] : edits) {
    const auto read = ParseTail(WithHeader(Replaced(header, from, to)));
    ASSERT_FALSE(read) << from << " -> " << to;
    EXPECT_TRUE(read.error().code == ErrorCode::kDataLoss ||
                read.error().code == ErrorCode::kInvalidArgument)
        << read.error().message;
  }
  EXPECT_FALSE(ParseTail(WithHeader(std::string(60'000, '['))));
}

TEST(TailTest, RefusesValuesThatAreNotFiniteAndWrongLengths) {
  auto bytes = SerializeTail(SmallTail());
  bytes.push_back(0);
  EXPECT_EQ(ParseTail(bytes).error().code, ErrorCode::kDataLoss);
  TailWeights tail = SmallTail();
  tail.weight[4] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(ParseTail(SerializeTail(tail)).error().message, HasSubstr("not finite"));
  EXPECT_EQ(ParseTail({}).error().code, ErrorCode::kDataLoss);
}

std::string ManifestError(const std::string& from, const std::string& to) {
  const auto read = ParseManifest(Replaced(FormatManifest(SmallManifest()), from, to));
  if (read) return "no error";
  EXPECT_EQ(read.error().code, ErrorCode::kInvalidArgument);
  return read.error().message;
}

TEST(ManifestTest, IsReadBack) {
  Manifest manifest = SmallManifest();
  manifest.mean = {0.485F * 255, 116.28F, 103.53F};
  manifest.class_names = {"cat", "chien \"é\"", "猫"};
  const std::string text = FormatManifest(manifest);
  const auto read = ParseManifest(text);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(FormatManifest(*read), text);
  EXPECT_EQ(read->name, "small");
  EXPECT_EQ(read->preprocess, manifest.preprocess);
  EXPECT_EQ(read->mean, manifest.mean);
  EXPECT_EQ(read->std, manifest.std);
  EXPECT_EQ(read->class_names, manifest.class_names);
  EXPECT_EQ(text.find("pixels"), std::string::npos);
  manifest.preprocess.pixels = photo::PixelForm::kJpeg95;
  EXPECT_EQ(ParseManifest(FormatManifest(manifest))->preprocess, manifest.preprocess);
  manifest.class_names.clear();
  EXPECT_TRUE(ParseManifest(FormatManifest(manifest)));
}

TEST(ManifestTest, NamesTheFieldThatIsWrong) {
  EXPECT_EQ(ManifestError("\"name\"", "\"nome\""), "manifest field \"nome\" is not known");
  EXPECT_EQ(ManifestError("\"name\": \"small\",", ""), "manifest field \"name\" is missing");
  EXPECT_THAT(ManifestError("\"small\"", "\"Small Model\""),
              HasSubstr("field \"name\" is not made"));
  EXPECT_THAT(ManifestError("\"small\"", "\"..\""), HasSubstr("field \"name\" is not made"));
  EXPECT_EQ(ManifestError("\"small\"", "7"), "manifest field \"name\" is no text");
  EXPECT_EQ(ManifestError("\"crop_width\": 8", "\"crop_width\": 0"),
            "manifest field \"preprocess.crop_width\" is not in 1…4096");
  EXPECT_EQ(ManifestError("\"crop_width\": 8", "\"crop_width\": 8.5"),
            "manifest field \"preprocess.crop_width\" is no whole number");
  EXPECT_THAT(ManifestError("\"crop_width\": 8", "\"crop_width\": 18446744073709551615"),
              HasSubstr("crop_width"));
  EXPECT_THAT(ManifestError("\"crop_width\": 8", "\"crop_width\": 100"), HasSubstr("preprocess"));
  EXPECT_THAT(ManifestError("bilinear", "nearest"), HasSubstr("preprocess.interpolation"));
  EXPECT_THAT(ManifestError("\"bilinear\"", "\"bilinear\", \"pixels\": \"webp\""),
              HasSubstr("preprocess.pixels"));
  EXPECT_THAT(ManifestError("128.0", "0.0"), HasSubstr("field \"std\" has a number"));
  EXPECT_THAT(ManifestError("127.0", "1e300"), HasSubstr("field \"mean\" has a number"));
  EXPECT_THAT(ManifestError("127.0", "\"x\""), HasSubstr("field \"mean\" is no list"));
  EXPECT_EQ(ManifestError("\"dog\"", "\"cat\""),
            "manifest field \"class_names\" has \"cat\" twice");
  EXPECT_THAT(ManifestError("\"dog\"", "\"\""), HasSubstr("entry, number 1"));
  EXPECT_THAT(ManifestError("\"dog\"", "\"a\\nb\""), HasSubstr("entry, number 1"));
  EXPECT_THAT(ManifestError("\"cat\"", "null"), HasSubstr("entry, number 0"));
  EXPECT_THAT(ParseManifest("[]").error().message, HasSubstr("no JSON object"));
  EXPECT_THAT(ParseManifest("{").error().message, HasSubstr("is no JSON: "));
}

}  // namespace
}  // namespace ndpipe::model
