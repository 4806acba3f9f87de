// Serving, comparing and exporting model versions over real loopback TCP.
#include <gmock/gmock.h>

#include "ndpipe/rpc/rpc_fakes.h"

namespace ndpipe::rpc {
namespace {

using testing::HasSubstr;

TEST_F(RpcTest, AVersionIsServed) {
  const auto report = operator_->ServeVersion(5);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(operators_.served, 5);
  EXPECT_EQ(report->version, 5);
  EXPECT_TRUE(report->serves);
  EXPECT_EQ(report->job, 23);
  EXPECT_EQ(report->labelled, 24);
  EXPECT_EQ(report->failed, 25);
  EXPECT_EQ(report->pending, 26);
  EXPECT_EQ(operator_->ServeVersion(99).error().code, ErrorCode::kNotFound);
  for (const int64_t number : {0, -1}) {
    EXPECT_EQ(operator_->ServeVersion(number).error().code, ErrorCode::kInvalidArgument);
  }
  const auto back = operator_->Rollback();
  ASSERT_FALSE(back);
  EXPECT_EQ(back.error().code, ErrorCode::kFailedPrecondition);
  EXPECT_EQ(operators_.served, 5) << "no version was named";
}

TEST_F(RpcTest, AVersionsLabelsAreDropped) {
  EXPECT_EQ(*operator_->DropVersion(5), 27);
  EXPECT_EQ(operators_.dropped, 5);
  EXPECT_EQ(operator_->DropVersion(99).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(operator_->DropVersion(0).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(RpcTest, AComparisonArrivesWhole) {
  operators_.num_classes = 65'536;  // more than one message could hold
  const auto compared = operator_->CompareVersions(3, 4, 5);
  ASSERT_TRUE(compared) << compared.error().message;
  EXPECT_EQ(operators_.compared, std::tuple(3, 4, 5));
  EXPECT_EQ(compared->same, 1);
  EXPECT_EQ(compared->changed, 2);
  EXPECT_EQ(compared->only_first, 3);
  EXPECT_EQ(compared->only_second, 4);
  EXPECT_EQ(compared->all.photos, 7);
  EXPECT_EQ(compared->all.first_right, 5);
  EXPECT_EQ(compared->all.second_right, 6);
  EXPECT_EQ(compared->unseen.photos, 3);
  EXPECT_EQ(compared->unseen.first_right, 1);
  EXPECT_EQ(compared->unseen.second_right, 2);
  ASSERT_EQ(compared->classes.size(), 65'536U);
  EXPECT_EQ(compared->classes[7].label, "class 7");
  EXPECT_EQ(compared->classes[7].first, 7);
  EXPECT_EQ(compared->classes[7].second, 14);
  EXPECT_EQ(compared->classes[7].both, 3);
  ASSERT_EQ(compared->examples.size(), 1U);
  const auto& example = compared->examples[0];
  EXPECT_EQ(example.photo_id, "ff");
  EXPECT_EQ(example.first, "cat");
  EXPECT_EQ(example.second, "");
  EXPECT_EQ(example.first_confidence, 0.25);
  EXPECT_EQ(example.second_confidence, 1);
  EXPECT_EQ(example.user_label, "dog");
  EXPECT_EQ(example.store, "s");
  EXPECT_EQ(example.path, std::string("photos/\xFF.jpg"));
  EXPECT_EQ(example.origin, "holiday");
}

TEST_F(RpcTest, AnExportedModelArrivesWholeOrNotAtAll) {
  const auto file = folder_ / "out.onnx";
  const auto none = operator_->ExportModel(3, file);
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message, HasSubstr("no such model"));
  EXPECT_FALSE(std::filesystem::exists(file));
  EXPECT_TRUE(std::filesystem::is_empty(folder_));

  operators_.onnx.assign(2'500'000, 'm');
  const auto exported = operator_->ExportModel(4, file);
  ASSERT_TRUE(exported) << exported.error().message;
  EXPECT_EQ(operators_.exported, 4);
  EXPECT_EQ(*ReadFile(file, 3'000'000), operators_.onnx);
  // Again, over what is there.
  operators_.onnx.assign(10, 'n');
  ASSERT_TRUE(operator_->ExportModel(4, file));
  EXPECT_EQ(*ReadFile(file, 3'000'000), operators_.onnx);
  EXPECT_EQ(operator_->ExportModel(4, folder_ / "no" / "out.onnx").error().code,
            ErrorCode::kNotFound);
}

}  // namespace
}  // namespace ndpipe::rpc
