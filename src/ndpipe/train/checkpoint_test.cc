#include "ndpipe/train/checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <string_view>

namespace ndpipe::train {
namespace {

Checkpoint Example() {
  return {.metadata = {{"epochs", "30"}, {"finished_runs", "2"}},
          .tensors = {{.name = "a", .shape = {2, 3}, .values = {1, 2, 3, -4, 0.5F, 1e-30F}},
                      {.name = "b", .shape = {1}, .values = {7}}}};
}

std::vector<uint8_t> WithHeader(std::string_view header, size_t data_bytes = 0) {
  std::vector<uint8_t> bytes(8 + header.size() + data_bytes);
  const uint64_t size = header.size();
  std::memcpy(bytes.data(), &size, 8);
  std::memcpy(bytes.data() + 8, header.data(), header.size());
  return bytes;
}

TEST(CheckpointTest, ComesBackAsItWentIn) {
  const auto bytes = SerializeCheckpoint(Example());
  EXPECT_EQ(bytes, SerializeCheckpoint(Example()));
  const auto parsed = ParseCheckpoint(bytes);
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->metadata, Example().metadata);
  ASSERT_EQ(parsed->tensors.size(), 2U);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(parsed->tensors[i].name, Example().tensors[i].name);
    EXPECT_EQ(parsed->tensors[i].shape, Example().tensors[i].shape);
    EXPECT_EQ(parsed->tensors[i].values, Example().tensors[i].values);
  }
}

TEST(CheckpointTest, AnyTruncationIsRefused) {
  const auto bytes = SerializeCheckpoint(Example());
  for (size_t size = 0; size < bytes.size(); ++size) {
    const auto parsed = ParseCheckpoint(std::span(bytes).first(size));
    ASSERT_FALSE(parsed) << size;
    EXPECT_EQ(parsed.error().code, ErrorCode::kDataLoss) << size;
  }
}

TEST(CheckpointTest, AFlippedBitOfATensorIsRefused) {
  const auto bytes = SerializeCheckpoint(Example());
  for (size_t i = bytes.size() - 7 * sizeof(float); i < bytes.size(); ++i) {
    auto damaged = bytes;
    damaged[i] ^= 0x10;
    ASSERT_FALSE(ParseCheckpoint(damaged)) << i;
  }
}

TEST(CheckpointTest, AFlippedBitOfTheHeaderIsAnErrorOrAnotherValidHeader) {
  const auto bytes = SerializeCheckpoint(Example());
  for (size_t i = 0; i < bytes.size() * 8; ++i) {
    auto damaged = bytes;
    damaged[i / 8] ^= static_cast<uint8_t>(1 << (i % 8));
    const auto parsed = ParseCheckpoint(damaged);
    if (!parsed) {
      EXPECT_EQ(parsed.error().code, ErrorCode::kDataLoss);
    }
  }
}

TEST(CheckpointTest, HostileHeadersAreRefused) {
  // SHA-256 of no bytes, so that the checksum lets these through to the tensors.
  const std::string marks =
      R"("__metadata__":{"format":"ndpipe-train-1","sha256":"e3b0c44298fc1c149afbf4c8996fb924)"
      R"(27ae41e4649b934ca495991b7852b855"})";
  EXPECT_TRUE(ParseCheckpoint(WithHeader("{" + marks + "}")));
  for (const std::string tensor : {
           R"("a":7)",
           R"("a":{"dtype":"F32","shape":[1]})",
           R"("a":{"dtype":"F16","shape":[0],"data_offsets":[0,0]})",
           R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})",
           R"("a":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]})",
           R"("a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,0]})",
           R"("a":{"dtype":"F32","shape":"x","data_offsets":[0,0]})",
           R"("a":{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,0]})",
           R"("a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,0]})",
           R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,0]})",
           R"("a":{"dtype":"F32","shape":[0],"data_offsets":[0,0,0]})",
           R"("a":{"dtype":"F32","shape":[0],"data_offsets":[4,0]})",
       }) {
    const auto parsed = ParseCheckpoint(WithHeader("{" + marks + "," + tensor + "}"));
    ASSERT_FALSE(parsed) << tensor;
    EXPECT_EQ(parsed.error().code, ErrorCode::kDataLoss);
  }
  for (const std::string_view header :
       {"", "[]", "null", "{}", "{\"__metadata__\":7}", "{\"__metadata__\":{\"format\":7}}",
        "{\"__metadata__\":{\"format\":\"other\"}}", "{\"__metadata__\":{}", "\xff\xfe"}) {
    EXPECT_FALSE(ParseCheckpoint(WithHeader(header))) << header;
  }
  EXPECT_FALSE(ParseCheckpoint(WithHeader(std::string(2000, '['))));
  std::vector<uint8_t> huge(16, 0xff);
  EXPECT_FALSE(ParseCheckpoint(huge));
}

}  // namespace
}  // namespace ndpipe::train
